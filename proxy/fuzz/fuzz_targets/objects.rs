//! What comes from the API server: objects of Kubernetes, and the operator's configuration in shards.
#![no_main]

use ferrule_config::shard;
use ferrule_proxy::discovery::objects::{ConfigMap, EndpointSlice, Service};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(service) = serde_json::from_slice::<Service>(bytes) {
        let _ = service.metadata.full_name();
    }
    if let Ok(slice) = serde_json::from_slice::<EndpointSlice>(bytes) {
        let _ = slice.service();
    }
    if let Ok(map) = serde_json::from_slice::<ConfigMap>(bytes) {
        if let Ok(mesh) = shard::join(&[(0, map.data)].into()) {
            // What was taken can be written again.
            assert!(shard::split(&mesh).is_ok());
        }
    }
});
