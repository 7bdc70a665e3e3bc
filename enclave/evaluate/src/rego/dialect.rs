//! Which Rego a source is written in.
//!
//! Rego v1 comes first: every source that parses as v1 is v1. What does not is read as the older language, in which a body needs no
//! `if` and `p[x] { … }` makes a set, provided that it is that language throughout. There, keywords that are not imported are plain
//! names: `allow if { … }` would be the fact `allow`, beside a rule called `if`. So a source that uses such a word without importing
//! it is no v0 either, and the author is told what v1 said.

use std::{iter::Peekable, num::NonZeroU32};

use regorus::{
    Engine, PolicyLengthConfig,
    unstable::{Rule, RuleHead},
};

use super::text::{Token, tokens};
use crate::error::ArtifactError;

const MAX_COLUMNS: NonZeroU32 = NonZeroU32::new(64 << 10).unwrap();

/// Words that are keywords of v1, and of v0 where they are imported.
const KEYWORDS: [&str; 4] = ["contains", "every", "if", "in"];

/// An engine without sources.
pub(super) fn engine() -> Engine {
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(true);
    // Prints are dropped with the engine; without this they would go to standard error.
    engine.set_gather_prints(true);
    engine.set_policy_length_config(PolicyLengthConfig {
        max_col: MAX_COLUMNS,
        ..PolicyLengthConfig::default()
    });
    engine
}

/// Parses a source into an engine, as its last module.
///
/// # Errors
/// [`ArtifactError::InvalidRego`] with what is wrong with the source as Rego v1.
pub(super) fn add(engine: &mut Engine, name: &str, text: &str) -> Result<(), ArtifactError> {
    let error = match parse(engine, name, text, false) {
        Ok(parsed) => {
            *engine = parsed;
            return Ok(());
        }
        Err(error) => error,
    };
    // Before it is parsed as v0: the parser would write a warning of each such word to standard error.
    if keywords_are_imported(text)
        && let Ok(mut parsed) = parse(engine, name, text, true)
        && !has_bare_rule(&mut parsed)
    {
        *engine = parsed;
        return Ok(());
    }
    Err(ArtifactError::InvalidRego {
        reason: format!("{error:#}"),
    })
}

fn parse(engine: &Engine, name: &str, text: &str, v0: bool) -> anyhow::Result<Engine> {
    let mut engine = engine.clone();
    engine.set_rego_v0(v0);
    engine.add_policy(name.to_owned(), text.to_owned())?;
    Ok(engine)
}

/// Whether a rule stands there with neither a value nor a body: v1 refuses it, and here it would hold always.
fn has_bare_rule(engine: &mut Engine) -> bool {
    engine
        .get_modules()
        .last()
        .into_iter()
        .flat_map(|module| module.policy.iter())
        .any(|rule| {
            matches!(
                rule.as_ref(),
                Rule::Spec {
                    head: RuleHead::Compr { assign: None, .. } | RuleHead::Func { assign: None, .. },
                    bodies,
                    ..
                } if bodies.is_empty()
            )
        })
}

/// Whether every use of a keyword follows an import of it.
fn keywords_are_imported(text: &str) -> bool {
    let mut imported = [false; KEYWORDS.len()];
    let mut tokens = tokens(text)
        .filter(|token| *token != Token::Line)
        .peekable();
    let mut after_dot = false;
    while let Some(token) = tokens.next() {
        if let Token::Word(word) = token
            && !after_dot
        {
            if word == "import" {
                import(&mut tokens, &mut imported);
            } else if let Some(index) = KEYWORDS.iter().position(|keyword| *keyword == word) {
                // A built-in function of that name was always there.
                let is_call = word == "contains" && tokens.peek() == Some(&Token::Open);
                if !imported[index] && !is_call {
                    return false;
                }
            }
        }
        after_dot = token == Token::Other(b'.');
    }
    true
}

/// Reads on after `import`: `future.keywords`, or one of them.
fn import<'a>(
    tokens: &mut Peekable<impl Iterator<Item = Token<'a>>>,
    imported: &mut [bool; KEYWORDS.len()],
) {
    for expected in [
        Token::Word("future"),
        Token::Other(b'.'),
        Token::Word("keywords"),
    ] {
        if tokens.next_if_eq(&expected).is_none() {
            return;
        }
    }
    if tokens.next_if_eq(&Token::Other(b'.')).is_none() {
        *imported = [true; KEYWORDS.len()];
        return;
    }
    if let Some(Token::Word(named)) = tokens.next() {
        for (keyword, imported) in KEYWORDS.iter().zip(imported) {
            // `every` brings `in` along.
            *imported |= *keyword == named || (named == "every" && *keyword == "in");
        }
    }
}
