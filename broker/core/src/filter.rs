//! Which messages a subscription sees: conditions on their attributes, in the filter language of the public API.
//!
//! ```text
//! attributes:lang                              has the attribute
//! attributes.lang = "en"                       has it, with this value
//! attributes.lang != "en"                      has it not, or with another value
//! hasPrefix(attributes.lang, "e")              has it, with a value that starts so
//! NOT a    -a    a AND b    a OR b    (a)      in which AND and OR stand beside each other only in parentheses
//! ```
//!
//! A key with other characters than letters, digits, `-` and `_` stands in quotes.

use std::fmt;
use std::str::FromStr;

/// The longest filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 256;
/// The most parentheses and negations that may stand within each other.
pub const FILTER_DEPTH_MAX: usize = 32;

/// A filter. Two are equal when their texts are.
#[derive(Clone, Debug)]
pub struct Filter {
    text: Box<str>,
    condition: Condition,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Has { key: String },
    Equals { key: String, value: String },
    HasPrefix { key: String, prefix: String },
    Not(Box<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

/// Why a text is no filter. Positions are bytes from the start of the text, from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// More than [`FILTER_BYTES_MAX`] bytes.
    #[error("the filter has {bytes} bytes, more than {FILTER_BYTES_MAX}")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// Something else should stand there.
    #[error("at position {at} of the filter: expected {expected}")]
    Expected {
        /// Where.
        at: usize,
        /// What.
        expected: &'static str,
    },
    /// AND beside OR, without parentheses that say which binds closer.
    #[error("at position {at} of the filter: AND and OR are combined by parentheses only")]
    Mixed {
        /// Where the second of them stands.
        at: usize,
    },
    /// More than [`FILTER_DEPTH_MAX`] parentheses and negations within each other.
    #[error("at position {at} of the filter: more than {FILTER_DEPTH_MAX} levels of parentheses and negations")]
    TooDeep {
        /// Where the first that is too many stands.
        at: usize,
    },
}

impl Filter {
    /// Reads a filter.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(FilterError::TooLong { bytes: text.len() });
        }
        let mut parser = Parser { text, at: 0 };
        let condition = parser.chain(0)?;
        parser.skip_space();
        if parser.at < text.len() {
            return Err(parser.expected("AND, OR or the end"));
        }
        Ok(Filter { text: text.into(), condition })
    }

    /// The filter as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a message with these attributes is seen; `attribute` gives the value of a key.
    pub fn matches<'a>(&self, attribute: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.condition.holds(&attribute)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Filter {}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Filter::parse(text)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Condition {
    /// Recursive, as deep as [`FILTER_DEPTH_MAX`] allows.
    fn holds<'a>(&self, attribute: &impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Condition::Has { key } => attribute(key).is_some(),
            Condition::Equals { key, value } => attribute(key) == Some(value),
            Condition::HasPrefix { key, prefix } => attribute(key).is_some_and(|value| value.starts_with(prefix)),
            Condition::Not(condition) => !condition.holds(attribute),
            Condition::All(conditions) => conditions.iter().all(|condition| condition.holds(attribute)),
            Condition::Any(conditions) => conditions.iter().any(|condition| condition.holds(attribute)),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    /// One condition, or several that are joined by the same operator.
    fn chain(&mut self, depth: usize) -> Result<Condition, FilterError> {
        let mut conditions = vec![self.term(depth)?];
        let mut joined_by = None;
        loop {
            self.skip_space();
            let at = self.at;
            let Some(operator) = ["AND", "OR"].into_iter().find(|operator| self.take_word(operator)) else { break };
            if *joined_by.get_or_insert(operator) != operator {
                return Err(FilterError::Mixed { at });
            }
            conditions.push(self.term(depth)?);
        }
        Ok(match (joined_by, conditions.pop()) {
            (None, Some(only)) => only,
            (operator, last) => {
                conditions.extend(last);
                if operator == Some("OR") { Condition::Any(conditions) } else { Condition::All(conditions) }
            }
        })
    }

    fn term(&mut self, depth: usize) -> Result<Condition, FilterError> {
        self.skip_space();
        if depth > FILTER_DEPTH_MAX {
            return Err(FilterError::TooDeep { at: self.at });
        }
        if self.take("-") || self.take_word("NOT") {
            return Ok(Condition::Not(Box::new(self.term(depth + 1)?)));
        }
        if self.take("(") {
            let condition = self.chain(depth + 1)?;
            self.need(")", "AND, OR or `)`")?;
            return Ok(condition);
        }
        if self.take_word("hasPrefix") {
            self.need("(", "`(`")?;
            self.attributes()?;
            self.need(".", "`.` and the key of an attribute")?;
            let key = self.key()?;
            self.need(",", "`,` and a prefix")?;
            let prefix = self.string("a prefix in double quotes")?;
            self.need(")", "`)`")?;
            return Ok(Condition::HasPrefix { key, prefix });
        }
        self.attributes()?;
        self.skip_space();
        if self.take(":") {
            return Ok(Condition::Has { key: self.key()? });
        }
        self.need(".", "`:` or `.` and the key of an attribute")?;
        let key = self.key()?;
        self.skip_space();
        let is_negated = self.take("!=");
        if !is_negated {
            self.need("=", "`=` or `!=`")?;
        }
        let equals = Condition::Equals { key, value: self.string("a value in double quotes")? };
        Ok(if is_negated { Condition::Not(Box::new(equals)) } else { equals })
    }

    fn attributes(&mut self) -> Result<(), FilterError> {
        self.skip_space();
        if self.take_word("attributes") {
            return Ok(());
        }
        Err(self.expected("`attributes`, `hasPrefix`, NOT, `-` or `(`"))
    }

    fn key(&mut self) -> Result<String, FilterError> {
        const EXPECTED: &str = "a key of letters, digits, `-` and `_`, or one in double quotes";
        self.skip_space();
        if self.rest().starts_with('"') {
            return self.string(EXPECTED);
        }
        let length = self.rest().bytes().take_while(|byte| is_word(*byte)).count();
        if length == 0 {
            return Err(self.expected(EXPECTED));
        }
        let key = self.rest()[..length].to_owned();
        self.at += length;
        Ok(key)
    }

    fn string(&mut self, expected: &'static str) -> Result<String, FilterError> {
        self.skip_space();
        if !self.take("\"") {
            return Err(self.expected(expected));
        }
        let mut value = String::new();
        loop {
            match self.rest().chars().next() {
                None => return Err(self.expected("`\"` at the end of the text")),
                Some('"') => {
                    self.at += 1;
                    return Ok(value);
                }
                Some('\\') => value.push(self.escaped()?),
                Some(plain) => {
                    value.push(plain);
                    self.at += plain.len_utf8();
                }
            }
        }
    }

    /// The character that an escape sequence stands for.
    fn escaped(&mut self) -> Result<char, FilterError> {
        let start = self.at;
        let (digits, radix, length) = match self.rest().as_bytes().get(1) {
            Some(b'x') => (2, 16, 2),
            Some(b'u') => (2, 16, 4),
            Some(b'U') => (2, 16, 8),
            Some(b'0'..=b'3') => (1, 8, 3),
            Some(simple) => {
                let plain = match simple {
                    b'"' => Some('"'),
                    b'\\' => Some('\\'),
                    b'\'' => Some('\''),
                    b'n' => Some('\n'),
                    b'r' => Some('\r'),
                    b't' => Some('\t'),
                    b'b' => Some('\u{8}'),
                    b'f' => Some('\u{c}'),
                    b'a' => Some('\u{7}'),
                    b'v' => Some('\u{b}'),
                    _ => None,
                };
                self.at += 2;
                return plain.ok_or(FilterError::Expected { at: start, expected: "an escape sequence" });
            }
            None => return Err(self.expected("an escape sequence")),
        };
        let found = self.rest().get(digits..digits + length);
        let number = found.filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let number = number.and_then(|text| u32::from_str_radix(text, radix).ok()).and_then(char::from_u32);
        self.at += digits + length;
        number.ok_or(FilterError::Expected { at: start, expected: "an escape sequence" })
    }

    fn need(&mut self, symbol: &str, expected: &'static str) -> Result<(), FilterError> {
        self.skip_space();
        if self.take(symbol) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.rest().starts_with(symbol);
        self.at += if found { symbol.len() } else { 0 };
        found
    }

    /// Takes a word that is not just the start of a longer one.
    fn take_word(&mut self, word: &str) -> bool {
        let next = self.rest().as_bytes().get(word.len());
        if next.is_some_and(|byte| is_word(*byte)) {
            return false;
        }
        self.take(word)
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn expected(&self, expected: &'static str) -> FilterError {
        FilterError::Expected { at: self.at, expected }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, attributes: &[(&str, &'static str)]) -> bool {
        let filter = Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        filter.matches(|key| attributes.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
    }

    #[test]
    fn each_condition_looks_at_key_and_value() {
        let attributes = [("lang", "en-GB"), ("iana.org/tag", "x"), ("empty", ""), ("-odd", "1")];
        for (filter, expected) in [
            ("attributes:lang", true),
            ("attributes:Lang", false),
            ("attributes : \"iana.org/tag\"", true),
            ("attributes.\"iana.org/tag\"=\"x\"", true),
            ("attributes:empty", true),
            ("attributes:-odd", true),
            ("attributes.lang = \"en-GB\"", true),
            ("attributes.lang = \"en-gb\"", false),
            ("attributes.lang != \"en\"", true),
            ("attributes.lang!=\"en-GB\"", false),
            ("attributes.none != \"en\"", true),
            ("attributes.none = \"\"", false),
            ("hasPrefix(attributes.lang, \"en\")", true),
            ("hasPrefix ( attributes . lang , \"gb\" )", false),
            ("hasPrefix(attributes.none, \"\")", false),
        ] {
            assert_eq!(matches(filter, &attributes), expected, "{filter}");
        }
    }

    #[test]
    fn conditions_combine_by_and_or_not_and_parentheses() {
        let attributes = [("a", "1"), ("b", "2")];
        for (filter, expected) in [
            ("attributes:a AND attributes:b AND NOT attributes:c", true),
            ("attributes:a AND attributes:c", false),
            ("attributes:c OR attributes:d OR attributes:b", true),
            ("attributes:c OR attributes:d", false),
            ("-attributes:a", false),
            ("NOT NOT attributes:a", true),
            ("NOT(attributes:a AND attributes:c)", true),
            ("NOT attributes:c AND attributes:b", true),
            ("NOT attributes:a OR attributes:c", false),
            ("(attributes:c OR attributes:a) AND attributes:b", true),
            ("attributes:c OR (attributes:a AND attributes:b)", true),
            ("\n ( ( attributes:a ) )\t", true),
            ("attributes:a AND -(attributes.b = \"2\" OR hasPrefix(attributes.a, \"2\"))", false),
        ] {
            assert_eq!(matches(filter, &attributes), expected, "{filter}");
        }
    }

    #[test]
    fn escape_sequences_stand_for_their_characters() {
        assert!(matches(
            r#"attributes.k = "\"\\\n\t\x41\u00e9\U0001F600\101\'""#,
            &[("k", "\"\\\n\tA\u{e9}\u{1F600}A'")]
        ));
        assert!(matches(r#"attributes:"\"""#, &[("\"", "")]));
    }

    #[test]
    fn an_error_says_where_and_what_was_expected() {
        for (filter, at, expected) in [
            ("", 0, "`attributes`"),
            ("  ", 2, "`attributes`"),
            ("lang = \"en\"", 0, "`attributes`"),
            ("attribute:a", 0, "`attributes`"),
            ("attributes", 10, "`:` or `.`"),
            ("attributes:", 11, "a key"),
            ("attributes:iana.org", 15, "AND, OR or the end"),
            ("attributes.a", 12, "`=` or `!=`"),
            ("attributes.a = en", 15, "a value in double quotes"),
            ("attributes.a = 'en'", 15, "a value in double quotes"),
            ("attributes.a = \"en", 18, "`\"` at the end"),
            ("attributes.a = \"\\q\"", 16, "an escape sequence"),
            ("attributes.a = \"\\x4", 16, "an escape sequence"),
            ("attributes.a = \"\\uD800\"", 16, "an escape sequence"),
            ("attributes.a = \"\\u+041\"", 16, "an escape sequence"),
            ("attributes.a = \"\\", 16, "an escape sequence"),
            ("attributes:a attributes:b", 13, "AND, OR or the end"),
            ("attributes:a and attributes:b", 13, "AND, OR or the end"),
            ("attributes:a ANDattributes:b", 13, "AND, OR or the end"),
            ("attributes:a AND", 16, "`attributes`"),
            ("attributes:a)", 12, "AND, OR or the end"),
            ("(attributes:a", 13, "AND, OR or `)`"),
            ("hasPrefix(attributes:a, \"\")", 20, "`.`"),
            ("hasPrefix(attributes.a)", 22, "`,`"),
            ("hasPrefix(attributes.a, \"\"", 26, "`)`"),
        ] {
            match Filter::parse(filter) {
                Err(FilterError::Expected { at: found_at, expected: found }) => {
                    assert_eq!(found_at, at, "{filter}: {found}");
                    assert!(found.starts_with(expected), "{filter}: {found}");
                }
                other => panic!("{filter}: {other:?}"),
            }
        }
    }

    #[test]
    fn and_stands_beside_or_only_in_parentheses() {
        let mixed = Filter::parse("attributes:a AND attributes:b OR attributes:c");
        assert_eq!(mixed, Err(FilterError::Mixed { at: 30 }));
        let mixed = Filter::parse("(attributes:a OR attributes:b AND attributes:c)");
        assert_eq!(mixed, Err(FilterError::Mixed { at: 30 }));
    }

    #[test]
    fn length_and_depth_are_limited() {
        let fits = format!("attributes:{}", "k".repeat(FILTER_BYTES_MAX - 11));
        assert_eq!(Filter::parse(&fits).map(|filter| filter.to_string()), Ok(fits.clone()));
        assert_eq!(Filter::parse(&format!("{fits}k")), Err(FilterError::TooLong { bytes: FILTER_BYTES_MAX + 1 }));
        for (open, close) in [("(", ")"), ("-", ""), ("NOT ", "")] {
            let nested = |depth: usize| format!("{}attributes:a{}", open.repeat(depth), close.repeat(depth));
            assert!(Filter::parse(&nested(FILTER_DEPTH_MAX)).is_ok());
            let at = open.len() * (FILTER_DEPTH_MAX + 1);
            assert_eq!(Filter::parse(&nested(FILTER_DEPTH_MAX + 1)), Err(FilterError::TooDeep { at }));
        }
    }

    #[test]
    fn nonsense_is_refused_without_a_panic() {
        let pieces =
            ["attributes", ":", ".", "=", "!=", "\"", "\\", "x", "é", "(", ")", " AND ", " OR ", "NOT ", "-", ","];
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let text: String = (0..rng.usize(0..20)).map(|_| pieces[rng.usize(0..pieces.len())]).collect();
            if let Ok(filter) = Filter::parse(&text) {
                assert_eq!(filter.to_string().parse::<Filter>(), Ok(filter));
            }
        }
    }
}
