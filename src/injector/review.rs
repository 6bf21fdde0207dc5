//! The admission review around a pod: bytes in, bytes out (`admission.k8s.io/v1`).

use json_patch::Patch;
use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::{Context, Decision, Refusal, ReviewResult, Settings, inject, podsecurity::Level};

const API_VERSION: &str = "admission.k8s.io/v1";

/// Why a request is not a review that can be answered; it gets HTTP status 400.
#[derive(Debug, Error)]
pub(super) enum Malformed {
    #[error("the body is not an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    #[error("apiVersion {found:?}, kind {kind:?}: expected AdmissionReview of {API_VERSION}")]
    Version { found: String, kind: String },
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

/// The fields of a request that matter. `dryRun` does not: nothing is changed but the answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    operation: String,
    resource: Resource,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    object: Value,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    group: String,
    resource: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A review answered.
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    pub(super) result: ReviewResult,
    /// The namespace of the pod, and why it was refused.
    pub(super) refusal: Option<(String, Refusal)>,
}

/// Answers a review. `pod_security` tells what the namespace of a name enforces.
pub(super) fn answer(
    body: &[u8],
    settings: &Settings,
    pod_security: impl FnOnce(&str) -> Option<Level>,
) -> Result<Answer, Malformed> {
    let review: Review = serde_json::from_slice(body)?;
    if review.api_version != API_VERSION || review.kind != "AdmissionReview" {
        return Err(Malformed::Version { found: review.api_version, kind: review.kind });
    }
    let request = review.request.ok_or(Malformed::NoRequest)?;
    let decision = decide(&request, settings, pod_security);
    let (result, response, refusal) = match decision {
        Ok(Some(Decision::Inject { patch, warnings })) if patch.is_empty() => {
            (ReviewResult::Unchanged, Response::allowed(request.uid, warnings), None)
        }
        Ok(Some(Decision::Inject { patch, warnings })) => {
            (ReviewResult::Injected, Response::patched(request.uid, &patch, warnings)?, None)
        }
        Ok(Some(Decision::Skip(skip))) => {
            let warnings = skip.warning().map(str::to_owned).into_iter().collect();
            (ReviewResult::Skipped, Response::allowed(request.uid, warnings), None)
        }
        Ok(None) => (ReviewResult::Skipped, Response::allowed(request.uid, Vec::new()), None),
        Err(refusal) => {
            let response = Response::refused(request.uid, &refusal);
            (ReviewResult::Refused, response, Some((request.namespace, refusal)))
        }
    };
    let review = json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response});
    Ok(Answer { body: serde_json::to_vec(&review)?, result, refusal })
}

/// `None`: not the creation of a pod, so nothing of ours.
fn decide(
    request: &Request,
    settings: &Settings,
    pod_security: impl FnOnce(&str) -> Option<Level>,
) -> Result<Option<Decision>, Refusal> {
    let pods = request.resource.group.is_empty() && request.resource.resource == "pods";
    if !pods || !request.sub_resource.is_empty() || request.operation != "CREATE" {
        return Ok(None);
    }
    let context = Context { namespace: &request.namespace, pod_security: pod_security(&request.namespace) };
    inject(&request.object, &context, settings).map(Some)
}

impl Response {
    fn allowed(uid: String, warnings: Vec<String>) -> Self {
        Self { uid, allowed: true, status: None, patch_type: None, patch: None, warnings }
    }

    fn patched(uid: String, patch: &Patch, warnings: Vec<String>) -> Result<Self, serde_json::Error> {
        let patch = ByteString(serde_json::to_vec(patch)?);
        Ok(Self { patch_type: Some("JSONPatch"), patch: Some(patch), ..Self::allowed(uid, warnings) })
    }

    fn refused(uid: String, refusal: &Refusal) -> Self {
        let status = json!({"code": 400, "reason": "BadRequest", "message": format!("ferrule: {refusal}")});
        Self { allowed: false, status: Some(status), ..Self::allowed(uid, Vec::new()) }
    }
}
