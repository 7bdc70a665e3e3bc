//! Rego text before it is parsed: tokens as far as brackets, words and strings go, and the bound on nesting.

use crate::error::ArtifactError;

/// Levels of brackets, and operators in one chain, that parser and interpreter walk without trouble on a stack of 8 MiB. Both descend
/// once for each, and neither has a bound of its own for chains.
const MAX_NESTING: usize = 128;
const MAX_CHAIN: usize = 256;

/// A piece of text. Comments and blanks between pieces are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// The end of a line.
    Line,
    /// A string, over so many ends of lines.
    String(u32),
    /// A name, keyword or number.
    Word(&'a str),
    /// An opening bracket of any kind.
    Open,
    /// A closing one.
    Close,
    /// A comma or semicolon.
    Separator,
    /// Any other byte: a part of an operator.
    Other(u8),
}

/// The tokens of a text. One that is not Rego is left for the parser to refuse.
pub(super) const fn tokens(text: &str) -> Tokens<'_> {
    Tokens { text, at: 0 }
}

/// See [`tokens`].
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        self.at += rest
            .iter()
            .position(|byte| !wanted(*byte))
            .unwrap_or(rest.len());
    }

    fn next_if(&mut self, wanted: impl Fn(u8) -> bool) -> Option<u8> {
        let byte = *self.text.as_bytes().get(self.at)?;
        wanted(byte).then(|| {
            self.at += 1;
            byte
        })
    }

    fn string(&mut self) -> Token<'a> {
        while let Some(inner) = self.next_if(|next| next != b'\n') {
            match inner {
                b'\\' => drop(self.next_if(|next| next != b'\n')),
                b'"' => break,
                _ => {}
            }
        }
        Token::String(0)
    }

    fn raw_string(&mut self) -> Token<'a> {
        let mut lines = 0;
        while let Some(inner) = self.next_if(|next| next != b'`') {
            lines += u32::from(inner == b'\n');
        }
        self.next_if(|next| next == b'`');
        Token::String(lines)
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let start = self.at;
            return Some(match self.next_if(|_| true)? {
                b' ' | b'\t' | b'\r' => continue,
                b'#' => {
                    self.skip_while(|next| next != b'\n');
                    continue;
                }
                b'\n' => Token::Line,
                b'"' => self.string(),
                b'`' => self.raw_string(),
                b'(' | b'[' | b'{' => Token::Open,
                b')' | b']' | b'}' => Token::Close,
                b',' | b';' => Token::Separator,
                byte if is_word(byte) => {
                    self.skip_while(is_word);
                    // Every byte that is not ASCII belongs to a word, so a word begins and ends between characters.
                    Token::Word(self.text.get(start..self.at).unwrap_or_default())
                }
                byte => Token::Other(byte),
            });
        }
    }
}

/// Refuses text that nests so deep that a recursive parser or interpreter could run out of stack.
///
/// Counts brackets, and operators between operands of one bracket level, outside of strings and comments.
pub(super) fn nesting(text: &str) -> Result<(), ArtifactError> {
    let mut scan = Scan {
        line: 1,
        ..Scan::default()
    };
    for token in tokens(text) {
        match token {
            Token::Line => {
                scan.line += 1;
                scan.broken = true;
            }
            Token::String(lines) => {
                scan.operand();
                scan.line += lines;
            }
            Token::Open => scan.open()?,
            Token::Close => scan.close(),
            Token::Separator => scan.chain = 0,
            Token::Word("in") => scan.operator()?,
            Token::Word(_) => scan.operand(),
            // Everything else chains: arithmetic, sets, comparison, assignment, and the dots of references.
            Token::Other(_) => scan.operator()?,
        }
    }
    Ok(())
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

#[derive(Default)]
struct Scan {
    line: u32,
    /// Operators so far in the chain of this bracket level, and of the levels around it.
    chain: usize,
    outer: Vec<usize>,
    /// A line has ended since the last token.
    broken: bool,
    /// The last token was an operator, so an operand continues its chain on a new line too.
    open_end: bool,
}

impl Scan {
    fn operand(&mut self) {
        // An operand that follows an operand on another line begins another expression.
        if self.broken && !self.open_end {
            self.chain = 0;
        }
        self.broken = false;
        self.open_end = false;
    }

    fn operator(&mut self) -> Result<(), ArtifactError> {
        self.chain += 1;
        self.broken = false;
        self.open_end = true;
        self.bound(self.chain, MAX_CHAIN, "a chain of more than", "operators")
    }

    fn open(&mut self) -> Result<(), ArtifactError> {
        self.operand();
        self.outer.push(self.chain);
        self.chain = 0;
        self.open_end = true;
        self.bound(
            self.outer.len(),
            MAX_NESTING,
            "brackets nest deeper than",
            "levels",
        )
    }

    fn close(&mut self) {
        self.chain = self.outer.pop().unwrap_or_default();
        self.broken = false;
        self.open_end = false;
    }

    fn bound(&self, got: usize, limit: usize, what: &str, unit: &str) -> Result<(), ArtifactError> {
        if got <= limit {
            return Ok(());
        }
        Err(ArtifactError::InvalidRego {
            reason: format!("line {}: {what} {limit} {unit}", self.line),
        })
    }
}
