//! Every decoder on arbitrary bytes: an error, or a message that encodes to exactly those bytes. So nothing panics, nothing
//! is read past its end, and no two byte strings mean the same message.
#![allow(clippy::unwrap_used)]

use newton_relay::control::{ToGuest, ToHost};
use newton_relay::dial::{Target, decode_answer, encode_answer};
use newton_relay::disk::{decode_reply, decode_request, encode_reply, encode_request};
use newton_relay::{read_frame, write_frame};
use proptest::prelude::*;

/// Bytes that often look like a message: a kind, some small integers, then anything.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let small = prop_oneof![Just(0u8), Just(1), Just(2), Just(16), any::<u8>()];
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        (0u8..7, proptest::collection::vec(small, 0..80)).prop_map(|(kind, mut rest)| {
            rest.insert(0, kind);
            rest
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn disk(body in bodies(), slot in prop_oneof![Just(1u32), Just(16), Just(4096)]) {
        if let Ok((id, request)) = decode_request(&body, slot) {
            prop_assert_eq!(encode_request(id, &request, slot).unwrap(), body.clone());
        }
        if let Ok((id, reply)) = decode_reply(&body) {
            // Text is made printable, so that only its length is kept.
            prop_assert_eq!(encode_reply(id, &reply).unwrap().len(), body.len());
        }
    }

    #[test]
    fn control(body in bodies()) {
        if let Ok(message) = ToHost::decode(&body) {
            prop_assert_eq!(message.encode().unwrap(), body.clone());
        }
        if let Ok(message) = ToGuest::decode(&body) {
            prop_assert_eq!(message.encode().unwrap().len(), body.len());
        }
    }

    #[test]
    fn dial(body in bodies()) {
        if let Ok(target) = Target::decode(&body) {
            // Host names are made lower case.
            prop_assert_eq!(target.encode().to_ascii_lowercase(), body.to_ascii_lowercase());
        }
        if let Ok(answer) = decode_answer(&body) {
            prop_assert_eq!(encode_answer(&answer).len(), body.len());
        }
    }

    #[test]
    fn frames(bytes in bodies()) {
        let mut rest = &bytes[..];
        let mut again = Vec::new();
        while let Ok(Some(body)) = read_frame(&mut rest, 64) {
            write_frame(&mut again, &body, 64).unwrap();
        }
        prop_assert!(bytes.starts_with(&again));
    }
}
