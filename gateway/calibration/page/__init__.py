"""The calibration report: one HTML file that loads nothing, made from what calibration saw and certified.

May import calibration's evidence and slices, deployment and everything below. Read `render.py` first.
"""

from gateway.calibration.page.render import render_report

__all__ = ["render_report"]
