#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| newton_fuzz::votes(input));
