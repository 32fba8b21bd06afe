//! The gate before the parser: what a statement may look like as a sequence of tokens.
//!
//! Parsing, planning and even dropping a statement recurse, so length, nesting and chains of
//! operators are bounded before anything is built from the text.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::{Error, Result};

/// Longest statement.
pub(super) const SQL_BYTES_MAX: usize = 16 * 1024;
/// Most tokens of a statement, white space not counted.
pub(super) const SQL_TOKENS_MAX: usize = 4_096;
/// Deepest nesting of parentheses, brackets and CASE.
pub(super) const SQL_NESTING_MAX: usize = 32;
/// Most operators in one expression without a comma or a clause between them.
pub(super) const SQL_CHAIN_MAX: usize = 128;
/// Most joins, commas between tables not counted.
pub(super) const SQL_JOINS_MAX: usize = 8;
/// Most set operations.
pub(super) const SQL_SET_OPERATIONS_MAX: usize = 16;

/// Refuses text that is too long, too deep, or more than one statement.
///
/// # Errors
/// [`Error::Refused`] with the rule, [`Error::Syntax`] for text that has no tokens.
pub(crate) fn check(sql: &str) -> Result<()> {
    if sql.len() > SQL_BYTES_MAX {
        return refused("length", "the SQL is longer than 16 KiB");
    }
    if sql.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return refused("control characters", "the SQL contains control characters");
    }
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql)
        .tokenize()
        .map_err(|error| Error::Syntax(error.to_string()))?;
    let mut tokens: Vec<Token> =
        tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    if tokens.last() == Some(&Token::SemiColon) {
        tokens.pop();
    }
    if tokens.is_empty() {
        return Err(Error::Syntax("the statement is empty".into()));
    }
    if tokens.len() > SQL_TOKENS_MAX {
        return refused("tokens", "the SQL has more than 4096 tokens");
    }
    let mut shape = Shape::default();
    tokens.iter().try_for_each(|token| shape.visit(token))
}

/// What has been seen so far.
#[derive(Default)]
struct Shape {
    /// Operators since the last comma or clause, per open bracket.
    chains: Vec<usize>,
    chain: usize,
    joins: usize,
    set_operations: usize,
}

impl Shape {
    fn visit(&mut self, token: &Token) -> Result<()> {
        match token {
            Token::SemiColon => {
                return refused("one statement", "the SQL has more than one statement");
            }
            Token::LParen | Token::LBracket | Token::LBrace => self.open()?,
            Token::RParen | Token::RBracket | Token::RBrace => self.close(),
            Token::Comma => self.chain = 0,
            Token::Word(word) => self.keyword(word.keyword)?,
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => {}
            Token::Placeholder(_) => {
                return refused("placeholders", "placeholders are not available");
            }
            _ => self.operator()?,
        }
        Ok(())
    }

    fn keyword(&mut self, keyword: Keyword) -> Result<()> {
        match keyword {
            Keyword::CASE => self.open()?,
            Keyword::END => self.close(),
            Keyword::AND | Keyword::OR | Keyword::NOT => self.operator()?,
            Keyword::JOIN => {
                self.joins += 1;
                if self.joins > SQL_JOINS_MAX {
                    return refused("joins", "the SQL has more than 8 joins");
                }
                self.chain = 0;
            }
            Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => {
                self.set_operations += 1;
                if self.set_operations > SQL_SET_OPERATIONS_MAX {
                    return refused("set operations", "the SQL has more than 16 set operations");
                }
                self.chain = 0;
            }
            Keyword::SELECT
            | Keyword::FROM
            | Keyword::WHERE
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::ORDER
            | Keyword::ON
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE => {
                self.chain = 0;
            }
            _ => {}
        }
        Ok(())
    }

    fn operator(&mut self) -> Result<()> {
        self.chain += 1;
        if self.chain > SQL_CHAIN_MAX {
            return refused("operators", "an expression has more than 128 operators in a row");
        }
        Ok(())
    }

    fn open(&mut self) -> Result<()> {
        self.chains.push(std::mem::take(&mut self.chain));
        if self.chains.len() > SQL_NESTING_MAX {
            return refused("nesting", "the SQL is nested deeper than 32 levels");
        }
        Ok(())
    }

    fn close(&mut self) {
        self.chain = self.chains.pop().unwrap_or_default();
    }
}

pub(crate) fn refused<T>(rule: &'static str, message: &str) -> Result<T> {
    Err(Error::Refused { rule, message: message.to_owned() })
}
