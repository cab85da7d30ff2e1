"""What one folder becomes: a `Deployment`, its models and artifacts, the certificate, the compiled pipeline.

May import policy and everything below. Read `deployment.py` first, then `artifacts.py` and `compile.py`.
"""
