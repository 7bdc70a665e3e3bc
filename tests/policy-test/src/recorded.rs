//! What stands in for the world: outputs that were recorded, and answers of servers.

use std::{collections::VecDeque, sync::Mutex};

use anyhow::{Context, Result};
use newton_evaluate::transcript::{
    FetchError, HttpFetcher, HttpOutcome, HttpRequest, HttpResponse,
};
use serde::Deserialize;

/// A component whose `run` returns `output`, whatever it is asked.
///
/// # Errors
/// If the text does not assemble, which it does.
pub fn component(output: &str) -> Result<Vec<u8>> {
    let length = output.len();
    // Every byte escaped: the text has no other form of them.
    let data: String = output.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let pages = (length + 1024).div_ceil(65_536) + 1;
    let text = format!(
        r#"(component
  (core module $main
    (memory (export "memory") {pages})
    (data (i32.const 1024) "{data}")
    ;; Asked once, for the input: it lies where nothing reads it.
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      (local.set $at (i32.mul (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get 3) (i32.const 16)))) (i32.const 65536)))
      (local.get $at))
    (func (export "run") (param i32 i32) (result i32)
      (i32.store (i32.const 4) (i32.const 1024))
      (i32.store (i32.const 8) (i32.const {length}))
      (i32.const 0)))
  (core instance $i (instantiate $main))
  (func (export "run") (param "input" string) (result (result string (error string)))
    (canon lift (core func $i "run") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"#
    );
    wat::parse_str(&text).context("a recorded output as a component")
}

/// One recorded answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The request it answers.
    pub url: String,
    /// `GET` where nothing is said.
    #[serde(default = "get")]
    pub method: String,
    /// Headers that the request must carry, beside others.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Text that the request's body must hold.
    #[serde(default)]
    pub asks: String,
    /// 200 where nothing is said.
    #[serde(default = "ok")]
    pub status: u16,
    /// The body: text as it is, anything else as JSON.
    #[serde(default)]
    pub body: serde_json::Value,
}

fn get() -> String {
    "GET".to_owned()
}

const fn ok() -> u16 {
    200
}

/// Servers that answer as recorded, those that are asked the same several times in the recorded order.
pub struct Servers {
    answers: Mutex<VecDeque<Answer>>,
}

impl Servers {
    /// With these answers.
    pub fn new(answers: &[Answer]) -> Self {
        Self {
            answers: Mutex::new(answers.iter().cloned().collect()),
        }
    }

    /// Answers nobody asked for.
    pub fn unasked(&self) -> Vec<String> {
        let answers = self.answers.lock();
        answers
            .iter()
            .flat_map(|answers| answers.iter())
            .map(|answer| format!("{} {}", answer.method, answer.url))
            .collect()
    }
}

impl HttpFetcher for Servers {
    fn fetch(&self, request: &HttpRequest, _: u64) -> Result<HttpOutcome, FetchError> {
        let unavailable = |reason: String| FetchError::Unavailable { reason };
        let mut answers = self
            .answers
            .lock()
            .map_err(|_| unavailable("the recording broke".to_owned()))?;
        let asked = format!("{} {}", request.method, request.url);
        // The first that fits: several components may ask at once.
        let answer = answers
            .iter()
            .position(|answer| answer.method == request.method && answer.url == request.url)
            .and_then(|index| answers.remove(index))
            .ok_or_else(|| unavailable(format!("nothing is recorded for {asked}")))?;
        for (name, value) in &answer.headers {
            let carried = |(n, v): &(String, String)| n.eq_ignore_ascii_case(name) && v == value;
            if !request.headers.iter().any(carried) {
                return Err(unavailable(format!(
                    "{asked} lacks the header {name}: {value}"
                )));
            }
        }
        let body = String::from_utf8_lossy(request.body.as_deref().unwrap_or_default());
        if !body.contains(&answer.asks) {
            return Err(unavailable(format!(
                "{asked} does not ask {:?}: {body}",
                answer.asks
            )));
        }
        Ok(Ok(HttpResponse {
            status: answer.status,
            headers: Vec::new(),
            body: match answer.body {
                serde_json::Value::Null => Vec::new(),
                serde_json::Value::String(text) => text.into_bytes(),
                other => other.to_string().into_bytes(),
            },
        }))
    }
}
