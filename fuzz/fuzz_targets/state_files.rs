//! Any bytes as what a node keeps between starts.
#![no_main]

use arpanet_core::Claim;
use arpanet_gossip::GossipState;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    arpanet_join::fuzzing::state(bytes);
    if let Ok(state) = serde_json::from_slice::<GossipState>(bytes) {
        let text = serde_json::to_vec(&state).unwrap();
        assert_eq!(serde_json::from_slice::<GossipState>(&text).unwrap(), state);
    }
    if let Ok(claim) = serde_json::from_slice::<Claim>(bytes) {
        let text = serde_json::to_vec(&claim).unwrap();
        assert_eq!(serde_json::from_slice::<Claim>(&text).unwrap(), claim);
    }
});
