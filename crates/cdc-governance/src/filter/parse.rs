//! From words to a predicate, by descent. Nesting is bounded, so the stack is.

use super::lex::{Token, tokens};
use super::{Comparison, FILTER_CHARS_MAX, Literal, Predicate};

/// Brackets and NOTs inside each other.
const DEPTH_MAX: usize = 32;
/// Words that are not column names unless quoted.
const KEYWORDS: [&str; 10] =
    ["and", "or", "not", "in", "is", "null", "like", "between", "true", "false"];

pub(super) fn parse(text: &str) -> Result<Predicate, String> {
    if text.chars().count() > FILTER_CHARS_MAX {
        return Err(format!("it is longer than {FILTER_CHARS_MAX} characters"));
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
    let predicate = parser.any_of(0)?;
    match parser.peek() {
        None => Ok(predicate),
        Some(_) => Err("it goes on behind its end".to_owned()),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn any_of(&mut self, depth: usize) -> Result<Predicate, String> {
        let mut left = self.all_of(depth)?;
        while self.take_word("or") {
            left = Predicate::Or(Box::new(left), Box::new(self.all_of(depth)?));
        }
        Ok(left)
    }

    fn all_of(&mut self, depth: usize) -> Result<Predicate, String> {
        let mut left = self.negation(depth)?;
        while self.take_word("and") {
            left = Predicate::And(Box::new(left), Box::new(self.negation(depth)?));
        }
        Ok(left)
    }

    fn negation(&mut self, depth: usize) -> Result<Predicate, String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX}"));
        }
        if self.take_word("not") {
            return Ok(Predicate::Not(Box::new(self.negation(depth + 1)?)));
        }
        if self.take_symbol("(") {
            let inner = self.any_of(depth + 1)?;
            return self.expect_symbol(")").map(|()| inner);
        }
        self.test()
    }

    fn test(&mut self) -> Result<Predicate, String> {
        let column = self.column()?;
        if self.take_word("is") {
            let negated = self.take_word("not");
            return match self.take_word("null") {
                true => Ok(negated_if(negated, Predicate::IsNull { column })),
                false => Err("IS must be followed by NULL or NOT NULL".to_owned()),
            };
        }
        let negated = self.take_word("not");
        if self.take_word("between") {
            let low = self.literal()?;
            if !self.take_word("and") {
                return Err("BETWEEN needs AND".to_owned());
            }
            let high = self.literal()?;
            return Ok(negated_if(negated, Predicate::Between { column, low, high }));
        }
        if self.take_word("in") {
            let literals = self.list()?;
            return Ok(negated_if(negated, Predicate::In { column, literals }));
        }
        if self.take_word("like") {
            return match self.literal()? {
                Literal::Text(pattern) => {
                    Ok(negated_if(negated, Predicate::Like { column, pattern }))
                }
                _ => Err("LIKE needs text".to_owned()),
            };
        }
        if negated {
            return Err("NOT must be followed by BETWEEN, IN or LIKE".to_owned());
        }
        let comparison = self.comparison()?;
        Ok(Predicate::Compare { column, comparison, literal: self.literal()? })
    }

    fn list(&mut self) -> Result<Vec<Literal>, String> {
        self.expect_symbol("(")?;
        let mut literals = vec![self.literal()?];
        while self.take_symbol(",") {
            literals.push(self.literal()?);
        }
        self.expect_symbol(")").map(|()| literals)
    }

    fn column(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Token::Quoted(name)) => Ok(name),
            Some(Token::Name(name)) if !KEYWORDS.contains(&name.as_str()) => Ok(name),
            _ => Err("a column name is missing".to_owned()),
        }
    }

    fn literal(&mut self) -> Result<Literal, String> {
        match self.next() {
            Some(Token::Number(number)) => Ok(Literal::Number(number)),
            Some(Token::Text(text)) => Ok(Literal::Text(text)),
            Some(Token::Name(name)) if name == "true" || name == "false" => {
                Ok(Literal::Bool(name == "true"))
            }
            Some(Token::Name(name)) if name == "null" => {
                Err("nothing equals NULL: write IS NULL".to_owned())
            }
            _ => Err("a literal is missing".to_owned()),
        }
    }

    fn comparison(&mut self) -> Result<Comparison, String> {
        match self.next() {
            Some(Token::Symbol("=")) => Ok(Comparison::Equal),
            Some(Token::Symbol("<>" | "!=")) => Ok(Comparison::NotEqual),
            Some(Token::Symbol("<")) => Ok(Comparison::Less),
            Some(Token::Symbol("<=")) => Ok(Comparison::LessOrEqual),
            Some(Token::Symbol(">")) => Ok(Comparison::Greater),
            Some(Token::Symbol(">=")) => Ok(Comparison::GreaterOrEqual),
            _ => Err("a comparison is missing".to_owned()),
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn take(&mut self, wanted: &Token) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn take_word(&mut self, word: &str) -> bool {
        self.take(&Token::Name(word.to_owned()))
    }

    fn take_symbol(&mut self, symbol: &'static str) -> bool {
        self.take(&Token::Symbol(symbol))
    }

    fn expect_symbol(&mut self, symbol: &'static str) -> Result<(), String> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(format!("`{symbol}` is missing")) }
    }
}

fn negated_if(negated: bool, predicate: Predicate) -> Predicate {
    if negated { Predicate::Not(Box::new(predicate)) } else { predicate }
}
