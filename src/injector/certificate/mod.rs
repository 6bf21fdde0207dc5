//! The webhook's serving certificate: made, renewed and made known by the operator itself.
//!
//! ```text
//!   Secret ferrule-webhook-tls ──watch──▶ Material ──▶ plan(now) ──▶ Keep
//!        ▲                                   │              └──────▶ issue ──compare and swap──┐
//!        └───────────────────────────────────┼─────────────────────────────────────────────────┘
//!                                            ├──▶ Certificates (what the server shows; swapped while it runs)
//!                                            └──▶ caBundle of the MutatingWebhookConfiguration
//! ```
//!
//! Every replica does all of this: the Secret's resourceVersion lets only one of them make a change, and the
//! others find it by their watch. A new authority is in the caBundle for a day before it signs anything that
//! is served, and its predecessor stays there until the next renewal, so no request meets a certificate that
//! the API server does not trust yet.

mod bundle;
mod issue;
mod keeper;
mod material;
mod plan;

pub(super) use keeper::Keeper;
