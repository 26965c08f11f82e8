//! The condition language of `exclude`, `when` and `--where`: comparisons, `and`, `or`, `not`, `in`, `is nan`, over dotted
//! keys.
//!
//! ```text
//! scaling.lr > 3e-3 and scaling.batch_tokens < 2^19
//! not (model.arch in [samba, sambay]) or tag == large-batch
//! ```
//!
//! The word on the left of a comparison is a key; on the right, one that is no key is text. No calls, no arithmetic.

use crate::units::parse_quantity;
use serde_json::Value;

/// What is wrong with a condition, and where in it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("character {place}: {problem}")]
pub struct ExpressionError {
    /// Which character, counted from one.
    pub place: usize,
    /// What is wrong.
    pub problem: String,
}

/// `problem` may quote a condition or a table: control characters, which JSON escapes but for U+007F, are replaced.
fn error(place: usize, problem: impl Into<String>) -> ExpressionError {
    let problem = problem.into().replace(char::is_control, "\u{fffd}");
    ExpressionError { place: place + 1, problem }
}

/// A parsed condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression(Node);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Or(Box<Node>, Box<Node>),
    And(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Truth(Operand),
    Compare(Operand, Relation, Operand),
    Among(Operand, Vec<Operand>),
    /// No number, which JSON has no other word for.
    Nan(Operand),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Relation {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Literal(Value),
    Word { name: String, column: usize },
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Symbol(&'static str),
    Word(String),
    Text(String),
}

const SYMBOLS: [&str; 11] = ["<=", ">=", "==", "!=", "<", ">", "(", ")", "[", "]", ","];

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ExpressionError> {
    let in_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '+' | '-' | '^');
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let column = text[..text.len() - rest.len()].chars().count();
        let Some(first) = rest.chars().next() else { return Ok(out) };
        let length = if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            out.push((column, Token::Symbol(symbol)));
            symbol.len()
        } else if first == '"' || first == '\'' {
            let end = rest[1..].find(first).ok_or_else(|| error(column, "this quote is never closed"))?;
            out.push((column, Token::Text(rest[1..=end].to_owned())));
            end + 2
        } else if in_word(first) {
            let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
            out.push((column, Token::Word(rest[..end].to_owned())));
            end
        } else {
            let hint = if first == '=' { "; hint: equality is written ==" } else { "" };
            return Err(error(column, format!("'{first}' has no meaning here{hint}")));
        };
        rest = &rest[length..];
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    position: usize,
    end: usize,
}

impl Parser {
    fn column(&self) -> usize {
        self.tokens.get(self.position).map_or(self.end, |(column, _)| *column)
    }

    fn take(&mut self, wanted: &Token) -> bool {
        let found = self.tokens.get(self.position).is_some_and(|(_, token)| token == wanted);
        self.position += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        self.take(&Token::Word(word.to_owned()))
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), ExpressionError> {
        if self.take(&Token::Symbol(symbol)) { Ok(()) } else { Err(self.unexpected(&format!("'{symbol}'"))) }
    }

    fn unexpected(&self, wanted: &str) -> ExpressionError {
        let found = match self.tokens.get(self.position) {
            Some((_, Token::Symbol(symbol))) => format!("found '{symbol}'"),
            Some((_, Token::Word(word))) => format!("found '{word}'"),
            Some((_, Token::Text(text))) => format!("found \"{text}\""),
            None => "the condition ends".to_owned(),
        };
        error(self.column(), format!("expected {wanted}, {found}"))
    }

    fn either(&mut self) -> Result<Node, ExpressionError> {
        let mut node = self.both()?;
        while self.take_word("or") {
            node = Node::Or(Box::new(node), Box::new(self.both()?));
        }
        Ok(node)
    }

    fn both(&mut self) -> Result<Node, ExpressionError> {
        let mut node = self.negation()?;
        while self.take_word("and") {
            node = Node::And(Box::new(node), Box::new(self.negation()?));
        }
        Ok(node)
    }

    fn negation(&mut self) -> Result<Node, ExpressionError> {
        if self.take_word("not") {
            return Ok(Node::Not(Box::new(self.negation()?)));
        }
        if self.take(&Token::Symbol("(")) {
            let node = self.either()?;
            self.expect(")")?;
            return Ok(node);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Node, ExpressionError> {
        let left = self.operand("a key")?;
        if self.take_word("in") {
            return Ok(Node::Among(left, self.list()?));
        }
        if self.take_word("is") {
            let not = self.take_word("not");
            if !self.take_word("nan") {
                return Err(self.unexpected("'nan' after 'is'"));
            }
            let nan = Node::Nan(left);
            return Ok(if not { Node::Not(Box::new(nan)) } else { nan });
        }
        if self.take_word("not") {
            if self.take_word("in") {
                return Ok(Node::Not(Box::new(Node::Among(left, self.list()?))));
            }
            return Err(self.unexpected("'in' after 'not'"));
        }
        let relation = match self.tokens.get(self.position) {
            Some((_, Token::Symbol("<"))) => Relation::Less,
            Some((_, Token::Symbol("<="))) => Relation::LessEqual,
            Some((_, Token::Symbol(">"))) => Relation::Greater,
            Some((_, Token::Symbol(">="))) => Relation::GreaterEqual,
            Some((_, Token::Symbol("=="))) => Relation::Equal,
            Some((_, Token::Symbol("!="))) => Relation::NotEqual,
            _ => return Ok(Node::Truth(left)),
        };
        self.position += 1;
        Ok(Node::Compare(left, relation, self.operand("a value")?))
    }

    fn list(&mut self) -> Result<Vec<Operand>, ExpressionError> {
        self.expect("[")?;
        let mut items = vec![self.operand("a value")?];
        while self.take(&Token::Symbol(",")) {
            items.push(self.operand("a value")?);
        }
        self.expect("]")?;
        Ok(items)
    }

    fn operand(&mut self, wanted: &str) -> Result<Operand, ExpressionError> {
        let operand = match self.tokens.get(self.position) {
            Some((_, Token::Text(text))) => Operand::Literal(Value::String(text.clone())),
            Some((column, Token::Word(word))) => match word.as_str() {
                "and" | "or" | "not" | "in" | "is" => return Err(self.unexpected(wanted)),
                "true" => Operand::Literal(Value::Bool(true)),
                "false" => Operand::Literal(Value::Bool(false)),
                _ => match parse_quantity(word) {
                    Some(number) => Operand::Literal(serde_json::json!(number)),
                    None => Operand::Word { name: word.clone(), column: *column },
                },
            },
            _ => return Err(self.unexpected(wanted)),
        };
        self.position += 1;
        Ok(operand)
    }
}

/// What a condition is asked about: the values of one point and the keys that any point has.
pub trait Scope {
    /// The value of `key` in this point.
    fn value(&self, key: &str) -> Option<&Value>;
    /// Whether any point has `key`.
    fn knows(&self, key: &str) -> bool;
    /// All keys, for a hint.
    fn keys(&self) -> Vec<&str>;
    /// How an error begins that names a key nobody has, and what to do when none is similar.
    fn unknown(&self) -> (&str, &str) {
        ("no run of this sweep sets", "give it in base")
    }
}

/// A row of a table: the values of its columns, null where it has none.
pub struct TableRow<'a> {
    /// Names of the columns.
    pub columns: &'a [String],
    /// One for each column.
    pub values: Vec<Value>,
}

impl Scope for TableRow<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        self.columns.iter().position(|column| column == key).map(|at| &self.values[at])
    }

    fn knows(&self, key: &str) -> bool {
        self.columns.iter().any(|column| column == key)
    }

    fn keys(&self) -> Vec<&str> {
        self.columns.iter().map(String::as_str).collect()
    }

    fn unknown(&self) -> (&str, &str) {
        ("there is no column", "see the first line of the table")
    }
}

impl Expression {
    /// Parses a condition.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let mut parser = Parser { tokens: tokens(text)?, position: 0, end: text.chars().count() };
        let node = parser.either()?;
        if parser.position < parser.tokens.len() {
            return Err(parser.unexpected("'and', 'or' or the end"));
        }
        Ok(Self(node))
    }

    /// Whether it holds. A comparison with a key that this point lacks does not, except `!=`.
    pub fn holds(&self, scope: &dyn Scope) -> Result<bool, ExpressionError> {
        holds(&self.0, scope)
    }
}

fn holds(node: &Node, scope: &dyn Scope) -> Result<bool, ExpressionError> {
    Ok(match node {
        // Both sides are always evaluated, so that a mistake shows whatever the point.
        Node::Or(left, right) => holds(left, scope)? | holds(right, scope)?,
        Node::And(left, right) => holds(left, scope)? & holds(right, scope)?,
        Node::Not(inner) => !holds(inner, scope)?,
        Node::Truth(operand) => match key_value(operand, scope)? {
            Value::Bool(truth) => truth,
            Value::Null => false,
            other => return Err(error(column(operand), format!("{other} is neither true nor false"))),
        },
        Node::Nan(operand) => key_value(operand, scope)?.is_null(),
        Node::Among(left, items) => {
            let value = key_value(left, scope)?;
            items.iter().any(|item| equal(&value, &item_value(item, scope)))
        }
        Node::Compare(left, relation, right) => {
            let (a, b) = (key_value(left, scope)?, item_value(right, scope));
            match relation {
                Relation::Equal => equal(&a, &b),
                Relation::NotEqual => !equal(&a, &b),
                _ if a.is_null() || b.is_null() => false,
                _ => {
                    let (Some(x), Some(y)) = (number(&a), number(&b)) else {
                        return Err(error(column(left), format!("{a} and {b} are not both numbers")));
                    };
                    let (x, y) = (six_digits(x), six_digits(y));
                    match relation {
                        Relation::Less => x < y,
                        Relation::LessEqual => x <= y,
                        Relation::Greater => x > y,
                        _ => x >= y,
                    }
                }
            }
        }
    })
}

fn column(operand: &Operand) -> usize {
    match operand {
        Operand::Word { column, .. } => *column,
        Operand::Literal(_) => 0,
    }
}

/// The left side: a word must be a key.
fn key_value(operand: &Operand, scope: &dyn Scope) -> Result<Value, ExpressionError> {
    let (name, column) = match operand {
        Operand::Literal(value) => return Ok(value.clone()),
        Operand::Word { name, column } => (name, *column),
    };
    if let Some(value) = scope.value(name) {
        return Ok(value.clone());
    }
    if scope.knows(name) {
        return Ok(Value::Null);
    }
    let near = scope
        .keys()
        .into_iter()
        .map(|key| (strsim::jaro_winkler(key, name), key))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(score, _)| *score > 0.8);
    let (problem, hint) = scope.unknown();
    Err(error(
        column,
        match near {
            Some((_, key)) => format!("{problem} '{name}'; hint: did you mean '{key}'?"),
            None => format!("{problem} '{name}'; hint: {hint}"),
        },
    ))
}

/// The right side: a word that is no key is text.
fn item_value(operand: &Operand, scope: &dyn Scope) -> Value {
    match operand {
        Operand::Literal(value) => value.clone(),
        Operand::Word { name, .. } => match scope.value(name) {
            Some(value) => value.clone(),
            None if scope.knows(name) => Value::Null,
            None => Value::String(name.clone()),
        },
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => parse_quantity(text),
        _ => None,
    }
}

/// The digits that count in a run's identity.
fn six_digits(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

fn equal(a: &Value, b: &Value) -> bool {
    match (number(a), number(b)) {
        (Some(x), Some(y)) => six_digits(x) == six_digits(y),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Map(BTreeMap<String, Value>);
    impl Scope for Map {
        fn value(&self, key: &str) -> Option<&Value> {
            self.0.get(key)
        }
        fn knows(&self, key: &str) -> bool {
            key == "tag" || self.0.contains_key(key)
        }
        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(String::as_str).collect()
        }
    }

    fn ask(text: &str) -> Result<bool, String> {
        let values = serde_json::json!({
            "model.depth": 12, "model.arch": "sambay", "scaling.lr": 3.2e-3, "scaling.batch_tokens": "2^18",
            "model.tie_embeddings": true, "scaling.rule": "mup++",
        });
        let Value::Object(map) = values else { unreachable!() };
        let scope = Map(map.into_iter().collect());
        Expression::parse(text).and_then(|e| e.holds(&scope)).map_err(|e| e.to_string())
    }

    #[test]
    fn conditions_hold_or_not() {
        for (text, expected) in [
            ("scaling.lr > 3e-3 and scaling.batch_tokens < 2^19", true),
            ("scaling.batch_tokens >= 263K", false),
            ("model.depth == 12 or model.depth == 16 and model.arch == samba", true),
            ("not model.depth >= 12", false),
            ("not (model.depth > 12 or model.arch == samba)", true),
            ("model.arch in [samba, sambay]", true),
            ("model.arch not in [samba, \"sambay\"]", false),
            ("model.tie_embeddings and scaling.rule == mup++", true),
            ("tag != large-batch", true),
            ("tag == large-batch", false),
            ("tag > 3", false),
            ("scaling.lr == 0.0032000000001", true),
        ] {
            assert_eq!(ask(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn mistakes_are_placed_and_named() {
        for (text, expected) in [
            (
                "model.dept > 3",
                "character 1: no run of this sweep sets 'model.dept'; hint: did you mean 'model.depth'?",
            ),
            ("model.depth >", "character 14: expected a value, the condition ends"),
            ("model.depth = 3", "character 13: '=' has no meaning here; hint: equality is written =="),
            ("(model.depth > 3", "character 17: expected ')', the condition ends"),
            ("model.depth > 3 model.arch", "character 17: expected 'and', 'or' or the end, found 'model.arch'"),
            ("model.arch < 3", "character 1: \"sambay\" and 3.0 are not both numbers"),
            ("model.arch < 'a\u{7f}b'", "character 1: \"sambay\" and \"a\u{fffd}b\" are not both numbers"),
            ("model.arch == 'x", "character 15: this quote is never closed"),
            ("", "character 1: expected a key, the condition ends"),
            ("é.x > 1", "character 1: no run of this sweep sets 'é.x'; hint: give it in base"),
        ] {
            assert_eq!(ask(text), Err(expected.to_owned()), "{text}");
        }
    }
}
