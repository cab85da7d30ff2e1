"""Every route of the data plane: its handler, its scopes, and its entry in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from gateway.access.in_flight import RETRY_S
from gateway.core.decision import Reason, Refused
from gateway.http.infer_route import infer
from gateway.http.lookup_routes import decision, review
from gateway.http.metadata_routes import (
    forbidden,
    live,
    model,
    model_config,
    model_ready,
    ready,
    reply_document,
    repository_index,
    server,
    statistics,
    unsupported,
)
from gateway.http.openapi import document
from gateway.http.openapi_of_several import document_of_several
from gateway.http.routes import Route, RoutedRequest, model_routes
from gateway.protocol.endings import Deferral, Rejection
from gateway.serving.data_plane import (
    ALWAYS_FORBIDDEN,
    INFERENCE_SCOPES,
    METADATA_SCOPES,
    OWN_RESULT_SCOPES,
    PUBLIC,
    RequestRejected,
)

_NOT_FOUND = (Rejection.NOT_FOUND,)
_UNREADY = (Reason.UNAVAILABLE,)
_NOT_THERE = (*_NOT_FOUND, *_UNREADY)
_TOO_LARGE = (Rejection.TOO_LARGE,)
_INFER = (
    Deferral.ACCEPTED,
    Deferral.ERROR,
    Rejection.NOT_FOUND,
    Rejection.TOO_LARGE,
    Rejection.UNSUPPORTED_MEDIA,
    Reason.ABSTAINED,
    Reason.UNAVAILABLE,
    Reason.DEADLINE,
)
_REVIEW = (Rejection.NOT_FOUND, Reason.UNAVAILABLE)
_UNSUPPORTED = "Not supported: always 501"
_ADMINISTRATION = "For administrators alone, elsewhere: always 403"


def _openapi(routed: RoutedRequest) -> Any:
    """Of the models that are ready and that the caller may use."""
    repository = routed.plane.repository
    contracts = [one.loaded.contract for one in routed.plane.usable(routed.caller)]
    serving = repository.settings.policy.serving
    if not contracts:
        raise RequestRejected(Refused(Reason.UNAVAILABLE, RETRY_S), "no model is ready for this key")
    if repository.only is not None:
        return document(ROUTES, contracts[0], serving.base_path, serving.anonymous == "loopback")
    return document_of_several(ROUTES, contracts, serving.base_path, serving.anonymous == "loopback")


# fmt: off
ROUTES = (
    Route("GET", "v2", PUBLIC, server, "The server and its extensions", "Server"),
    Route("GET", "v2/health/live", PUBLIC, live, "Whether the server lives", "Health"),
    Route("GET", "v2/health/ready", PUBLIC, ready, "Whether at least one model is ready", "Health", _UNREADY),
    Route("GET", "openapi.json", METADATA_SCOPES, reply_document(_openapi),
          "This document", "OpenApi", _UNREADY),
    Route("GET", "v2/models/stats", METADATA_SCOPES, statistics,
          "How much this replica has done", "Statistics"),
    *model_routes("GET", "", METADATA_SCOPES, model,
                  "What the model takes and gives", "Model", _NOT_THERE),
    *model_routes("GET", "/ready", METADATA_SCOPES, model_ready,
                  "Whether the model is ready", "ModelReady", _NOT_THERE),
    *model_routes("GET", "/config", METADATA_SCOPES, model_config,
                  "The model's configuration", "ModelConfig", _NOT_THERE),
    *model_routes("GET", "/stats", METADATA_SCOPES, statistics,
                  "How much this replica has done", "Statistics", _NOT_THERE),
    *model_routes("POST", "/infer", INFERENCE_SCOPES, infer,
                  "Infer: answered, degraded to a fallback, deferred to a person, or refused",
                  "InferReply", _INFER),
    *model_routes("GET", "/trace/setting", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    *model_routes("GET", "/generate", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    *model_routes("GET", "/generate_stream", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    *model_routes("GET", "/infer_stream", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    *model_routes("POST", "/trace/setting", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    *model_routes("POST", "/generate", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    *model_routes("POST", "/generate_stream", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    *model_routes("POST", "/infer_stream", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    Route("POST", "v2/repository/index", METADATA_SCOPES, repository_index,
          "Which models there are", "RepositoryIndex", _TOO_LARGE),
    Route("POST", "v2/repository/models/{model}/load", ALWAYS_FORBIDDEN, forbidden, _ADMINISTRATION),
    Route("POST", "v2/repository/models/{model}/unload", ALWAYS_FORBIDDEN, forbidden, _ADMINISTRATION),
    Route("GET", "v2/logging", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    Route("GET", "v2/trace/setting", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    Route("GET", "v2/systemsharedmemory/{rest*}", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    Route("GET", "v2/cudasharedmemory/{rest*}", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    Route("POST", "v2/logging", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    Route("POST", "v2/trace/setting", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    Route("POST", "v2/systemsharedmemory/{rest*}", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    Route("POST", "v2/cudasharedmemory/{rest*}", METADATA_SCOPES, unsupported, _UNSUPPORTED),
    Route("GET", "decisions/{id}", OWN_RESULT_SCOPES, decision,
          "How a request of the caller's own ended", "Decision", _NOT_FOUND),
    Route("GET", "reviews/{id}", INFERENCE_SCOPES, review,
          "How a deferred row of the caller's own stands", "Review", _REVIEW),
)
# fmt: on
"""A path that matches several rows belongs to the first."""
