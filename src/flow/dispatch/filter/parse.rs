//! From a filter's text to its expression: words, then a descent by precedence (`or`, `and`, `not`, parentheses).
//!
//! Bounds kept here: those of the filter, so that the descent and every later evaluation are short.

use rust_decimal::Decimal;
use tickgate_feeds::calendar::Date;
use tickgate_feeds::decimal;
use tickgate_feeds::market::{Channel, Field, Kind};
use tickgate_feeds::spec::nearest;

use super::{Change, Expression, Least, Name, Relation, Slip, TRADE, Unit};
use crate::base::limits::{FILTER_CHANGES_MAX, FILTER_CHARS_MAX, FILTER_DEPTH_MAX, FILTER_NODES_MAX};

/// Fields that are prices, and so move in ticks.
const PRICES: [&str; 11] = [
    "last",
    "bid",
    "ask",
    "open",
    "high",
    "low",
    "prev_close",
    "reference",
    "ceiling",
    "floor",
    "auction_price",
];
const RELATIONS: [(&str, Relation); 6] = [
    ("==", Relation::Equal),
    ("!=", Relation::NotEqual),
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("<", Relation::Less),
    (">", Relation::More),
];

/// Reads a whole expression, and the changes that it names.
pub(super) fn expression(text: &str) -> Result<(Expression, Vec<Change>), Slip> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, nodes: 0, changes: Vec::new() };
    let expression = parser.any(0)?;
    match parser.peek().kind {
        TokenKind::End => Ok((expression, parser.changes)),
        _ => Err(parser.slip("and, or, or the end")),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum TokenKind {
    Word,
    Number(Decimal),
    /// In quotes.
    Text,
    Relation(Relation),
    Open,
    Close,
    Percent,
    End,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: TokenKind,
    text: &'a str,
    column: usize,
}

impl Token<'_> {
    fn slip(&self, expected: impl Into<String>) -> Slip {
        Slip { column: self.column, expected: expected.into(), found: self.text.to_owned() }
    }
}

/// Cuts the text into words.
fn tokens(text: &str) -> Result<Vec<Token<'_>>, Slip> {
    if text.chars().count() > FILTER_CHARS_MAX {
        let expected = format!("at most {FILTER_CHARS_MAX} characters");
        return Err(Slip { column: FILTER_CHARS_MAX + 1, expected, found: "more".to_owned() });
    }
    let (mut tokens, mut rest, mut column) = (Vec::new(), text, 1);
    loop {
        let blank = rest.len() - rest.trim_start().len();
        column += rest[..blank].chars().count();
        rest = &rest[blank..];
        let Some(first) = rest.chars().next() else { break };
        let token = token(rest, first, column)?;
        tokens.push(token);
        column += token.text.chars().count();
        rest = &rest[token.text.len()..];
    }
    tokens.push(Token { kind: TokenKind::End, text: "the end", column });
    Ok(tokens)
}

fn token(rest: &str, first: char, column: usize) -> Result<Token<'_>, Slip> {
    let until = |end: &dyn Fn(char) -> bool| {
        let after_first = &rest[first.len_utf8()..];
        &rest[..first.len_utf8() + after_first.find(end).unwrap_or(after_first.len())]
    };
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut token = Token { kind: TokenKind::Word, text: &rest[..first.len_utf8()], column };
    match first {
        '(' => token.kind = TokenKind::Open,
        ')' => token.kind = TokenKind::Close,
        '%' => token.kind = TokenKind::Percent,
        '\'' | '"' => {
            let text = until(&|c| c == first);
            let closed = rest.get(..text.len() + 1);
            token.text = closed.ok_or_else(|| Token { text, ..token }.slip(format!("a closing {first}")))?;
            token.kind = TokenKind::Text;
        }
        '-' | '0'..='9' => {
            token.text = until(&|c| !is_part(c) && c != '.');
            let number = decimal::exact(token.text).ok_or_else(|| token.slip("a number"))?;
            token.kind = TokenKind::Number(number);
        }
        _ if first.is_ascii_alphabetic() => token.text = until(&|c| !is_part(c)),
        _ => {
            let known = RELATIONS.iter().find(|(text, _)| rest.starts_with(text));
            let (text, relation) = known
                .ok_or_else(|| token.slip("a field, a value, a parenthesis, or one of == != < <= > >="))?;
            (token.kind, token.text) = (TokenKind::Relation(*relation), &rest[..text.len()]);
        }
    }
    Ok(token)
}

/// A field's numbers, what it is called and what it holds.
#[derive(Clone, Copy)]
struct Known {
    name: Name,
    text: &'static str,
    kind: Kind,
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    nodes: usize,
    changes: Vec<Change>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens[self.at]
    }

    /// The next token; the last one, the end, is never passed.
    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is = self.peek().kind == TokenKind::Word && self.peek().text == word;
        if is {
            self.next();
        }
        is
    }

    fn expect(&mut self, kind: TokenKind, expected: &str) -> Result<(), Slip> {
        let token = self.next();
        if token.kind == kind { Ok(()) } else { Err(token.slip(expected)) }
    }

    fn slip(&self, expected: impl Into<String>) -> Slip {
        self.peek().slip(expected)
    }

    fn any(&mut self, depth: usize) -> Result<Expression, Slip> {
        let mut any = vec![self.all(depth)?];
        while self.takes_word("or") {
            any.push(self.all(depth)?);
        }
        Ok(one_or(any, Expression::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Expression, Slip> {
        let mut all = vec![self.one(depth)?];
        while self.takes_word("and") {
            all.push(self.one(depth)?);
        }
        Ok(one_or(all, Expression::All))
    }

    fn one(&mut self, depth: usize) -> Result<Expression, Slip> {
        let first = self.peek();
        self.nodes += 1;
        if self.nodes > FILTER_NODES_MAX {
            return Err(first.slip(format!("at most {FILTER_NODES_MAX} conditions, nots and parentheses")));
        }
        if depth > FILTER_DEPTH_MAX {
            return Err(first.slip(format!("at most {FILTER_DEPTH_MAX} parentheses and nots in each other")));
        }
        if self.takes_word("not") {
            let denied = self.peek();
            let one = self.one(depth + 1)?;
            if one.waits() {
                return Err(denied.slip("a comparison after not, neither move nor changed"));
            }
            return Ok(Expression::Not(Box::new(one)));
        }
        if first.kind != TokenKind::Open {
            return self.condition();
        }
        self.next();
        let inner = self.any(depth + 1)?;
        self.expect(TokenKind::Close, "and, or, or )")?;
        Ok(inner)
    }

    fn condition(&mut self) -> Result<Expression, Slip> {
        let (first, second) = (self.next(), self.peek());
        if first.kind != TokenKind::Word {
            return Err(first.slip("a field, move(..), changed(..), not, or ("));
        }
        match (first.text, second.kind) {
            ("move" | "changed", TokenKind::Open) => self.change(first),
            _ => self.comparison(known(first)?),
        }
    }

    fn comparison(&mut self, known: Known) -> Result<Expression, Slip> {
        let between = self.next();
        let TokenKind::Relation(relation) = between.kind else {
            return Err(between.slip("one of == != < <= > >="));
        };
        let token = self.next();
        let orders = !matches!(relation, Relation::Equal | Relation::NotEqual);
        let is_null = token.kind == TokenKind::Word && token.text == "null";
        if orders && (is_null || matches!(known.kind, Kind::Code(_))) {
            let what = if is_null { "null" } else { known.text };
            return Err(between.slip(format!("== or !=, for {what} has no order")));
        }
        let value = if is_null { None } else { Some(value(known.kind, token)?) };
        Ok(Expression::Compare(known.name, relation, value))
    }

    fn change(&mut self, first: Token<'a>) -> Result<Expression, Slip> {
        self.next();
        let field = self.next();
        let known = known(field)?;
        if known.name.trade.is_some() {
            return Err(field.slip("a field of quote or index"));
        }
        let least = if first.text == "changed" {
            self.expect(TokenKind::Close, ")")?;
            None
        } else {
            Some(self.least(field, &known)?)
        };
        if self.changes.len() >= FILTER_CHANGES_MAX {
            return Err(first.slip(format!("at most {FILTER_CHANGES_MAX} of move and changed")));
        }
        self.changes.push(Change { name: known.name, least });
        Ok(Expression::Change(self.changes.len() - 1))
    }

    /// What stands behind `move(field`.
    fn least(&mut self, field: Token<'a>, known: &Known) -> Result<Least, Slip> {
        if known.kind != Kind::Decimal {
            return Err(field.slip("a field that holds a number"));
        }
        self.expect(TokenKind::Close, ")")?;
        let between = self.next();
        let more = match between.kind {
            TokenKind::Relation(Relation::AtLeast) => false,
            TokenKind::Relation(Relation::More) => true,
            _ => return Err(between.slip(">= or >")),
        };
        let token = self.next();
        let amount = match token.kind {
            TokenKind::Number(amount) if amount > Decimal::ZERO => amount,
            _ => return Err(token.slip("a number above 0")),
        };
        let behind = self.peek();
        let unit = match (behind.kind, behind.text) {
            (TokenKind::Percent, _) => Unit::Percent,
            (TokenKind::Word, "tick" | "ticks") if !PRICES.contains(&known.text) => {
                return Err(behind.slip(format!("a plain number or %, for {} has no ticks", known.text)));
            }
            (TokenKind::Word, "tick" | "ticks") => Unit::Ticks,
            _ => return Ok(Least { amount, unit: Unit::Plain, more }),
        };
        self.next();
        Ok(Least { amount, unit, more })
    }
}

fn one_or(mut some: Vec<Expression>, all: fn(Box<[Expression]>) -> Expression) -> Expression {
    match some.pop() {
        Some(only) if some.is_empty() => only,
        last => all(some.into_iter().chain(last).collect()),
    }
}

/// The field of this name.
fn known(token: Token<'_>) -> Result<Known, Slip> {
    let (quote, index) = (Channel::Quote.fields(), Channel::Index.fields());
    let find = |fields: &'static [Field]| fields.iter().position(|field| field.name == token.text);
    let (in_quote, in_index) = (find(quote), find(index));
    let in_trade = TRADE.iter().position(|(name, _)| *name == token.text);
    let field = in_quote.map(|at| &quote[at]).or(in_index.map(|at| &index[at]));
    let field = field.map(|field| (field.name, field.kind)).or(in_trade.map(|at| TRADE[at]));
    let name = Name {
        quote: in_quote.map(|at| at as u8),
        index: in_index.map(|at| at as u8),
        trade: in_trade.map(|at| at as u8),
    };
    if let Some((text, kind)) = field.filter(|_| token.kind == TokenKind::Word) {
        return Ok(Known { name, text, kind });
    }
    let names = quote.iter().chain(index).map(|field| field.name).chain(TRADE.map(|(name, _)| name));
    let names: Vec<&str> = names.collect();
    Err(token.slip(match nearest(token.text, &names) {
        Some(near) => format!("a field such as {near}"),
        None => "a field of quote, index or trade".to_owned(),
    }))
}

/// A value as a field of this kind holds it.
fn value(kind: Kind, token: Token<'_>) -> Result<Decimal, Slip> {
    let text = (token.kind == TokenKind::Text).then(|| &token.text[1..token.text.len() - 1]);
    match kind {
        Kind::Decimal => match token.kind {
            TokenKind::Number(number) => Ok(number),
            _ => Err(token.slip("a number")),
        },
        Kind::Code(names) => {
            let code = text.and_then(|text| names.iter().position(|name| *name == text));
            code.map(Decimal::from).ok_or_else(|| token.slip(format!("one of '{}'", names.join("', '"))))
        }
        Kind::Date => text.and_then(date).ok_or_else(|| token.slip("a date such as '2026-11-23'")),
    }
}

fn date(text: &str) -> Option<Decimal> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if (year.len(), month.len(), day.len()) != (4, 2, 2) || text.contains('+') {
        return None;
    }
    let date = Date::from_ymd(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
    Some(Decimal::from(date.yyyymmdd()))
}
