//! Whose a token is: asked of the API server, for each request anew.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ferrule_config::names::IDENTITY_AUDIENCE;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus},
    core::v1::Pod,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::timeout;

use super::refusal::Refusal;
use crate::controller::Refusal as Answer;

/// Longest a request to the API server may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// What a message repeats of what others said.
const MAX_QUOTE: usize = 200;

/// The pod that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) service_account: String,
    pub(super) pod: String,
    pub(super) uid: String,
}

/// Asks the API server.
pub(super) struct Reviewer {
    client: Client,
}

impl Reviewer {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Whose token this is.
    pub(super) async fn owner(&self, token: &str) -> Result<Owner, Refusal> {
        let spec = TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![IDENTITY_AUDIENCE.to_owned()]),
        };
        let review = TokenReview { metadata: ObjectMeta::default(), spec, status: None };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let answer = ask(reviews.create(&params, &review)).await?;
        owner(answer.status.unwrap_or_default())
    }

    /// Whether the pod is still there, the same one, under the same service account; and at this address, if one is given.
    pub(super) async fn check(&self, owner: &Owner, peer: Option<IpAddr>) -> Result<(), Refusal> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &owner.namespace);
        let pod = ask(pods.get_opt(&owner.pod)).await?;
        check(owner, pod.as_ref(), peer)
    }
}

async fn ask<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Refusal> {
    let answer = timeout(REQUEST_TIMEOUT, request)
        .await
        .map_err(|_| Refusal::ApiServer("no answer in time".to_owned()))?;
    answer.map_err(|error| Refusal::ApiServer(quote(&Answer::from(error).to_string())))
}

fn owner(status: TokenReviewStatus) -> Result<Owner, Refusal> {
    let TokenReviewStatus { authenticated, audiences, error, user } = status;
    if authenticated != Some(true) {
        return Err(Refusal::Token(quote(&error.unwrap_or_else(|| "it is not valid".to_owned()))));
    }
    // An API server that knows nothing of audiences would leave them out.
    if !audiences.iter().flatten().any(|audience| audience == IDENTITY_AUDIENCE) {
        return Err(Refusal::Token("it was not checked for an audience".to_owned()));
    }
    let user = user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let parts = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let Some((namespace, service_account)) = parts else {
        return Err(Refusal::NotServiceAccount(quote(&name)));
    };
    let extra = user.extra.unwrap_or_default();
    let (Some(pod), Some(uid)) = (only(&extra, POD_NAME), only(&extra, POD_UID)) else {
        return Err(Refusal::Unbound);
    };
    let (namespace, service_account) = (namespace.to_owned(), service_account.to_owned());
    Ok(Owner { namespace, service_account, pod: pod.to_owned(), uid: uid.to_owned() })
}

fn only<'a>(extra: &'a BTreeMap<String, Vec<String>>, key: &str) -> Option<&'a str> {
    match extra.get(key).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Some(value),
        _ => None,
    }
}

fn check(owner: &Owner, pod: Option<&Pod>, peer: Option<IpAddr>) -> Result<(), Refusal> {
    let pod = pod.filter(|pod| pod.metadata.uid.as_ref() == Some(&owner.uid)).ok_or(Refusal::PodGone)?;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Err(Refusal::PodGone);
    }
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    if account.unwrap_or("default") != owner.service_account {
        return Err(Refusal::OtherAccount);
    }
    let Some(peer) = peer else { return Ok(()) };
    let addresses = pod.status.as_ref().and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
    if addresses.is_empty() {
        // The kubelet tells of it a moment after the pod has it.
        return Err(Refusal::NoAddress);
    }
    let own = addresses.iter().any(|address| address.ip.parse() == Ok(peer));
    if own { Ok(()) } else { Err(Refusal::OtherAddress(peer)) }
}

fn quote(text: &str) -> String {
    text.chars().take(MAX_QUOTE).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status() -> Value {
        json!({
            "authenticated": true,
            "audiences": [IDENTITY_AUDIENCE],
            "user": {
                "username": "system:serviceaccount:shop:cart",
                "extra": { POD_NAME: ["cart-1"], POD_UID: ["u1"] },
            },
        })
    }

    fn owner_of(status: Value) -> Result<Owner, &'static str> {
        owner(serde_json::from_value(status).expect("a status")).map_err(|refusal| refusal.cause())
    }

    fn cart() -> Owner {
        let text = str::to_owned;
        Owner { namespace: text("shop"), service_account: text("cart"), pod: text("cart-1"), uid: text("u1") }
    }

    #[test]
    fn a_projected_token_belongs_to_its_pod() {
        assert_eq!(owner_of(status()), Ok(cart()));
    }

    #[test]
    fn anything_less_is_refused_with_its_cause() {
        for (pointer, value, cause) in [
            ("/authenticated", json!(false), "token"),
            ("/authenticated", json!(null), "token"),
            ("/audiences", json!([]), "token"),
            ("/audiences", json!(["https://kubernetes.default.svc"]), "token"),
            ("/user/username", json!("admin"), "not-service-account"),
            ("/user/username", json!("system:serviceaccount:shop"), "not-service-account"),
            ("/user/extra", json!({}), "unbound"),
            ("/user/extra", json!({ POD_NAME: ["cart-1"] }), "unbound"),
            ("/user/extra", json!({ POD_NAME: ["cart-1", "cart-2"], POD_UID: ["u1"] }), "unbound"),
        ] {
            let mut status = status();
            *status.pointer_mut(pointer).expect("there") = value;
            assert_eq!(owner_of(status), Err(cause), "{pointer}");
        }
    }

    #[test]
    fn a_pod_must_be_the_one_that_the_token_was_made_for() {
        let pod = |uid: &str, account: &str, phase: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "cart-1", "uid": uid},
                "spec": {"serviceAccountName": account, "containers": []},
                "status": {"phase": phase},
            }))
            .expect("a pod")
        };
        assert_eq!(check(&cart(), Some(&pod("u1", "cart", "Running")), None), Ok(()));
        assert_eq!(check(&cart(), Some(&pod("u1", "cart", "Pending")), None), Ok(()), "init containers run");
        assert_eq!(check(&cart(), None, None), Err(Refusal::PodGone));
        assert_eq!(check(&cart(), Some(&pod("u2", "cart", "Running")), None), Err(Refusal::PodGone));
        assert_eq!(check(&cart(), Some(&pod("u1", "cart", "Failed")), None), Err(Refusal::PodGone));
        assert_eq!(check(&cart(), Some(&pod("u1", "other", "Running")), None), Err(Refusal::OtherAccount));
    }

    #[test]
    fn a_token_counts_only_at_an_address_of_its_pod() {
        let pod = |addresses: Value| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "cart-1", "uid": "u1"},
                "spec": {"serviceAccountName": "cart", "containers": []},
                "status": {"phase": "Running", "podIPs": addresses},
            }))
            .expect("a pod")
        };
        let both = pod(json!([{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]));
        let at = |pod: &Pod, peer: &str| check(&cart(), Some(pod), Some(peer.parse().expect("an address")));
        assert_eq!(at(&both, "10.0.0.7"), Ok(()));
        assert_eq!(at(&both, "fd00:0::7"), Ok(()));
        assert_eq!(at(&both, "10.0.0.8").map_err(|refusal| refusal.cause()), Err("other-address"));
        assert_eq!(at(&pod(json!([])), "10.0.0.7"), Err(Refusal::NoAddress));
    }

    #[test]
    fn what_others_say_is_repeated_in_part() {
        let error = "x".repeat(10_000);
        let refusal = owner(TokenReviewStatus { error: Some(error), ..TokenReviewStatus::default() });
        assert!(refusal.expect_err("refused").to_string().len() < 400);
    }
}
