//! A trust bundle as it is mounted: whoever may write ConfigMaps of the namespace may have written it.
#![no_main]

use ferrule_proxy::identity::Bundle;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(bundle) = Bundle::parse(text) {
        assert!((1..=16).contains(&bundle.certificates().len()));
        assert_eq!(bundle.roots().len(), bundle.certificates().len());
        assert_eq!(bundle.signing_root().len(), 64);
    }
});
