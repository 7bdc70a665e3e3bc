//! Frames of the relay, and the messages of all its services.

use newton_relay::control::{ToGuest, ToHost};
use newton_relay::dial::{Target, decode_answer, encode_answer};
use newton_relay::disk::{decode_reply, decode_request, encode_reply, encode_request};
use newton_relay::{read_frame, write_frame};

const SLOT: u32 = 16;
const LIMIT: usize = 1 << 16;

/// A stream of frames, and each body as a message of every service: what decodes must encode to the same bytes, since two
/// encodings of one message would be two readings of one stream.
pub fn frames(input: &[u8]) {
    let mut stream = input;
    while let Ok(Some(body)) = read_frame(&mut stream, LIMIT) {
        let mut again = Vec::new();
        write_frame(&mut again, &body, LIMIT).unwrap();
        assert!(input.len() >= stream.len() + again.len());
        messages(&body);
    }
    // Checksums are hard to guess: the body is also tried without a frame.
    messages(input);
}

fn messages(body: &[u8]) {
    if let Ok((id, request)) = decode_request(body, SLOT) {
        assert_eq!(encode_request(id, &request, SLOT).unwrap(), body);
    }
    if let Ok((id, reply)) = decode_reply(body) {
        let again = encode_reply(id, &reply).unwrap();
        assert_eq!(decode_reply(&again).unwrap(), (id, reply));
    }
    if let Ok(message) = ToGuest::decode(body) {
        let again = message.encode().unwrap();
        assert_eq!(ToGuest::decode(&again).unwrap(), message);
    }
    if let Ok(message) = ToHost::decode(body) {
        let again = message.encode().unwrap();
        assert_eq!(ToHost::decode(&again).unwrap(), message);
    }
    if let Ok(target) = Target::decode(body) {
        assert_eq!(Target::decode(&target.encode()).unwrap(), target);
    }
    if let Ok(answer) = decode_answer(body) {
        assert!(decode_answer(&encode_answer(&answer)).is_ok());
    }
}
