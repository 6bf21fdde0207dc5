//! A certificate signing request, as any pod may send it.
#![no_main]

use ferrule::identity::Csr;
use ferrule_config::identity::SpiffeId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(csr) = Csr::parse(bytes) else { return };
    // Who asks for one identity does not ask for another one too; who asks for none may have any.
    let ids = ["spiffe://cluster.local/ns/shop/sa/cart", "spiffe://cluster.local/ns/shop/sa/admin"];
    let [one, two] = ids.map(|id| {
        let id: SpiffeId = id.parse().expect("an identity");
        csr.asks_only_for(&id).is_ok()
    });
    assert!(one == two || csr.asks());
    // A key on the curve, as DER of a SubjectPublicKeyInfo: 26 bytes before an uncompressed point.
    assert_eq!(csr.public_key().len(), 26 + 65);
});
