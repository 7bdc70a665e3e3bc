//! The strict parser.

use std::collections::{BTreeMap, btree_map::Entry};

use num_bigint::{BigInt, Sign};
use num_traits::{One, Zero};
use serde::{Deserialize, Serialize};

use super::{Json, MAX_DEPTH, MAX_DIGITS};

/// Where and why a text is not strict JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{kind} at byte {offset}")]
pub struct JsonError {
    /// Offset of the first offending byte.
    pub offset: u64,
    /// What is wrong.
    pub kind: JsonErrorKind,
}

/// What is wrong with a JSON text. Never carries text of the document, which may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// The bytes are not UTF-8.
    #[error("invalid UTF-8")]
    NotUtf8,
    /// The text ends inside a value.
    #[error("unexpected end")]
    UnexpectedEnd,
    /// A byte that cannot stand here.
    #[error("unexpected character")]
    UnexpectedCharacter,
    /// Bytes after the value.
    #[error("trailing bytes")]
    TrailingBytes,
    /// More than 128 levels.
    #[error("nesting deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A key occurs twice in one object.
    #[error("duplicate key")]
    DuplicateKey,
    /// Not a JSON number.
    #[error("invalid number")]
    InvalidNumber,
    /// An integer of more than 1,024 digits or a number beyond binary64.
    #[error("number out of range")]
    NumberOutOfRange,
    /// An escape that does not exist.
    #[error("invalid escape")]
    InvalidEscape,
    /// Half of a surrogate pair.
    #[error("lone surrogate")]
    LoneSurrogate,
    /// A raw control character in a string.
    #[error("control character in string")]
    ControlCharacter,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Json, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError {
        offset: error.valid_up_to() as u64,
        kind: JsonErrorKind::NotUtf8,
    })?;
    let mut parser = Parser { text, bytes, at: 0 };
    parser.space();
    let value = parser.value(0)?;
    parser.space();
    if parser.at != bytes.len() {
        return Err(parser.error(JsonErrorKind::TrailingBytes));
    }
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    const fn error(&self, kind: JsonErrorKind) -> JsonError {
        JsonError {
            offset: self.at as u64,
            kind,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn unexpected(&self) -> JsonError {
        self.error(if self.at >= self.bytes.len() {
            JsonErrorKind::UnexpectedEnd
        } else {
            JsonErrorKind::UnexpectedCharacter
        })
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::String),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.unexpected()),
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, JsonError> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                return Err(self.unexpected());
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn enter(&mut self, depth: usize) -> Result<usize, JsonError> {
        if depth >= MAX_DEPTH {
            return Err(self.error(JsonErrorKind::TooDeep));
        }
        self.at += 1;
        self.space();
        Ok(depth + 1)
    }

    fn array(&mut self, depth: usize) -> Result<Json, JsonError> {
        let depth = self.enter(depth)?;
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Json::Array(items));
                }
                _ => return Err(self.unexpected()),
            }
            self.space();
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, JsonError> {
        let depth = self.enter(depth)?;
        let mut members = BTreeMap::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(members));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.unexpected());
            }
            let key_at = self.at;
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.unexpected());
            }
            self.at += 1;
            self.space();
            match members.entry(key) {
                Entry::Occupied(_) => {
                    return Err(JsonError {
                        offset: key_at as u64,
                        kind: JsonErrorKind::DuplicateKey,
                    });
                }
                Entry::Vacant(entry) => {
                    let value = self.value(depth)?;
                    entry.insert(value);
                }
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Json::Object(members));
                }
                _ => return Err(self.unexpected()),
            }
            self.space();
        }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            while matches!(self.peek(), Some(byte) if byte != b'"' && byte != b'\\' && byte >= 0x20)
            {
                self.at += 1;
            }
            // Both ends stand beside ASCII bytes, so they are character boundaries.
            out.push_str(&self.text[start..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.error(JsonErrorKind::ControlCharacter)),
                None => return Err(self.error(JsonErrorKind::UnexpectedEnd)),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        self.at += 1;
        let byte = self
            .peek()
            .ok_or_else(|| self.error(JsonErrorKind::UnexpectedEnd))?;
        self.at += 1;
        Ok(match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let lone = JsonError {
                    offset: start as u64,
                    kind: JsonErrorKind::LoneSurrogate,
                };
                let first = self.hex4()?;
                match first {
                    0xd800..=0xdbff => {
                        if self.bytes.get(self.at..self.at + 2) != Some(b"\\u") {
                            return Err(lone);
                        }
                        self.at += 2;
                        let second = self.hex4()?;
                        if !(0xdc00..=0xdfff).contains(&second) {
                            return Err(lone);
                        }
                        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                        char::from_u32(code).ok_or(lone)?
                    }
                    _ => char::from_u32(first).ok_or(lone)?,
                }
            }
            _ => {
                return Err(JsonError {
                    offset: start as u64,
                    kind: JsonErrorKind::InvalidEscape,
                });
            }
        })
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let mut code = 0;
        for _ in 0..4 {
            let byte = self
                .peek()
                .ok_or_else(|| self.error(JsonErrorKind::UnexpectedEnd))?;
            let digit = char::from(byte)
                .to_digit(16)
                .ok_or_else(|| self.error(JsonErrorKind::InvalidEscape))?;
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn digits(&mut self) -> Result<&str, JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if start == self.at {
            return Err(self.error(JsonErrorKind::InvalidNumber));
        }
        Ok(&self.text[start..self.at])
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        let invalid = |offset: usize, kind| JsonError {
            offset: offset as u64,
            kind,
        };
        let negative = self.peek() == Some(b'-');
        if negative {
            self.at += 1;
        }
        let whole = self.digits()?.to_owned();
        if whole.len() > 1 && whole.starts_with('0') {
            return Err(invalid(start, JsonErrorKind::InvalidNumber));
        }
        let mut fraction = String::new();
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?.clone_into(&mut fraction);
        }
        let mut exponent = 0i64;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            let minus = self.peek() == Some(b'-');
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            let digits = self.digits()?.trim_start_matches('0');
            // Seven digits decide as much as more would: every such number is zero, out of range, or tiny.
            exponent = digits
                .get(..digits.len().min(7))
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            if minus {
                exponent = -exponent;
            }
        }
        let text = &self.text[start..self.at];
        let out_of_range = invalid(start, JsonErrorKind::NumberOutOfRange);
        match decimal(&whole, &fraction, exponent) {
            Decimal::Integer(digits) => {
                let magnitude = digits.ok_or(out_of_range)?;
                let sign = if magnitude.is_zero() {
                    Sign::NoSign
                } else {
                    Sign::Plus
                };
                let value = BigInt::from_biguint(sign, magnitude);
                Ok(Json::Int(if negative { -value } else { value }))
            }
            Decimal::Fraction => {
                let value: f64 = text
                    .parse()
                    .map_err(|_| invalid(start, JsonErrorKind::InvalidNumber))?;
                Json::from_f64(value).ok_or(out_of_range)
            }
        }
    }
}

enum Decimal {
    /// `None` when there are too many digits.
    Integer(Option<num_bigint::BigUint>),
    Fraction,
}

/// Decides exactly whether `whole.fraction × 10^exponent` is an integer.
fn decimal(whole: &str, fraction: &str, exponent: i64) -> Decimal {
    let fraction = fraction.trim_end_matches('0');
    let digits: String = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Decimal::Integer(Some(num_bigint::BigUint::zero()));
    }
    // Digits left of the decimal point once the exponent is applied, minus all digits: how many zeros to append.
    let scale = exponent - fraction.len() as i64;
    let trailing_zeros = (significant.len() - significant.trim_end_matches('0').len()) as i64;
    if scale + trailing_zeros < 0 {
        return Decimal::Fraction;
    }
    let total = significant.len() as i64 + scale;
    if total > MAX_DIGITS as i64 {
        return Decimal::Integer(None);
    }
    let kept = if scale < 0 {
        &significant[..significant.len() - scale.unsigned_abs() as usize]
    } else {
        significant
    };
    let magnitude = num_bigint::BigUint::parse_bytes(kept.as_bytes(), 10);
    let power = if scale > 0 {
        num_bigint::BigUint::from(10u8).pow(u32::try_from(scale).unwrap_or(0))
    } else {
        num_bigint::BigUint::one()
    };
    Decimal::Integer(magnitude.map(|value| value * power))
}
