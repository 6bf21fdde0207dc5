//! What has to be done about the certificates now. Pure: the time and the Secret's content come in.
//!
//! An authority lives ten years. In its last one a successor is made and put into the bundle, a day later it
//! takes over. A serving certificate lives ninety days and is renewed when half of them are over, so an
//! operator that was gone for six weeks still comes back in time.

use std::time::{Duration, SystemTime};

use super::material::{Material, MaterialError};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Life of an authority.
pub(super) const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);
/// Rest of that life in which its successor is made.
const AUTHORITY_REST: Duration = DAY.saturating_mul(365);
/// Life of a serving certificate.
pub(super) const SERVING_LIFE: Duration = DAY.saturating_mul(90);
/// How long a new authority is trusted before it signs.
const OVERLAP: Duration = DAY;
/// Certificates are valid from this long before they are made, for clocks that are slow.
pub(super) const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing.
    Keep,
    /// Make everything anew; there is nothing that could be built on.
    Create(String),
    /// Make a serving certificate.
    RenewServing(String),
    /// Make the next authority and have it trusted.
    PrepareAuthority,
    /// Let the next authority take over and sign.
    PromoteAuthority,
}

/// The plan for a Secret that is absent (`None`), unusable, or fine, when the server is called `name`.
pub(super) fn plan(now: SystemTime, material: Option<&Result<Material, MaterialError>>, name: &str) -> Plan {
    let material = match material {
        None => return Plan::Create("there is none".into()),
        Some(Err(error)) => return Plan::Create(error.to_string()),
        Some(Ok(material)) => material,
    };
    let authority = material.authority.validity;
    let expired = now >= authority.not_after;
    match &material.next {
        Some(next) if expired || now >= next.validity.not_before + BACKDATE + OVERLAP => {
            return Plan::PromoteAuthority;
        }
        None if expired => return Plan::Create("the authority has expired".into()),
        None if now + AUTHORITY_REST >= authority.not_after => return Plan::PrepareAuthority,
        Some(_) | None => {}
    }
    if let Some(objection) = material.objection(name, now) {
        return Plan::RenewServing(objection);
    }
    if now + SERVING_LIFE / 2 >= material.serving.validity.not_after {
        return Plan::RenewServing("half of its life is over".into());
    }
    Plan::Keep
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::injector::certificate::issue::carry_out;

    const NAME: &str = "ferrule-webhook.ferrule-system.svc";
    const START: Duration = DAY.saturating_mul(20_000);

    fn at(after: Duration) -> SystemTime {
        UNIX_EPOCH + START + after
    }

    fn days(count: u32) -> Duration {
        DAY * count
    }

    fn created() -> Material {
        let plan = plan(at(Duration::ZERO), None, NAME);
        assert_eq!(plan, Plan::Create("there is none".into()));
        carry_out(&plan, None, at(Duration::ZERO), NAME).expect("issued").expect("something new")
    }

    fn plan_for(material: &Material, now: SystemTime) -> Plan {
        plan(now, Some(&Ok(material.clone())), NAME)
    }

    fn carried_out(material: &Material, now: SystemTime) -> Material {
        let plan = plan_for(material, now);
        carry_out(&plan, Some(material), now, NAME).expect("issued").expect("something new")
    }

    #[test]
    fn what_was_just_made_is_kept() {
        let material = created();
        assert_eq!(plan_for(&material, at(Duration::ZERO)), Plan::Keep);
        assert_eq!(plan_for(&material, at(days(44))), Plan::Keep);
        // A replica whose clock is slow does not object either.
        assert_eq!(plan_for(&material, at(Duration::ZERO) - BACKDATE), Plan::Keep);
    }

    #[test]
    fn a_serving_certificate_is_renewed_at_half_its_life_by_the_same_authority() {
        let material = created();
        let now = at(days(45));
        assert_eq!(plan_for(&material, now), Plan::RenewServing("half of its life is over".into()));
        let renewed = carried_out(&material, now);
        assert_eq!(renewed.authority, material.authority);
        assert_ne!(renewed.serving, material.serving);
        assert_eq!(plan_for(&renewed, now), Plan::Keep);
    }

    #[test]
    fn a_certificate_for_another_name_is_renewed() {
        let material = created();
        let plan = plan(at(Duration::ZERO), Some(&Ok(material)), "ferrule-webhook.mesh.svc");
        assert!(matches!(plan, Plan::RenewServing(_)), "{plan:?}");
    }

    #[test]
    fn a_certificate_of_another_authority_is_renewed() {
        let material = Material { serving: created().serving, ..created() };
        assert!(matches!(plan_for(&material, at(Duration::ZERO)), Plan::RenewServing(_)));
    }

    #[test]
    fn a_new_authority_is_trusted_for_a_day_before_it_signs() {
        let old = created();
        let now = at(days(3650 - 365));
        let old = Material { serving: carried_out(&old, at(days(3650 - 400))).serving, ..old };
        assert_eq!(plan_for(&old, now), Plan::PrepareAuthority);

        let prepared = carried_out(&old, now);
        assert_eq!(prepared.serving, old.serving, "still the old one is served");
        assert!(prepared.bundle().contains(&prepared.next.as_ref().expect("next").certificate));
        assert_eq!(plan_for(&prepared, now + DAY - Duration::from_secs(1)), Plan::Keep);
        assert_eq!(plan_for(&prepared, now + DAY), Plan::PromoteAuthority);

        let promoted = carried_out(&prepared, now + DAY);
        assert_eq!(Some(&promoted.authority), prepared.next.as_ref());
        assert!(promoted.bundle().contains(&old.authority.certificate), "replicas still serve the old one");
        assert_eq!(promoted.objection(NAME, now + DAY), None);
        assert_eq!(plan_for(&promoted, now + DAY), Plan::Keep);

        let renewed = carried_out(&promoted, now + days(50));
        assert_eq!(renewed.bundle(), renewed.authority.certificate, "the old one is trusted no more");
    }

    #[test]
    fn what_expired_while_the_operator_was_gone_is_replaced_at_once() {
        let old = created();
        let late = at(days(3651));
        assert_eq!(plan_for(&old, late), Plan::Create("the authority has expired".into()));
        let prepared = carried_out(&old, at(days(3640)));
        assert_eq!(plan_for(&prepared, late), Plan::PromoteAuthority);
    }

    #[test]
    fn a_spoilt_secret_is_made_anew() {
        let mut data = created().to_data();
        data.remove("tls.key");
        let plan = plan(at(Duration::ZERO), Some(&Material::parse(&data)), NAME);
        assert_eq!(plan, Plan::Create("key \"tls.key\" is missing".into()));
        let mut data = created().to_data();
        let other = created().to_data();
        data.insert("ca.key".into(), other["ca.key"].clone());
        assert!(Material::parse(&data).is_err());
    }

    #[test]
    fn material_survives_the_secret() {
        let prepared = carried_out(&created(), at(days(3640)));
        assert_eq!(Material::parse(&prepared.to_data()), Ok(prepared));
    }

    #[test]
    fn keys_are_not_printed() {
        let material = created();
        let secret = material.serving.key.lines().nth(1).expect("base64").to_owned();
        assert!(!format!("{material:?}").contains(&secret));
    }
}
