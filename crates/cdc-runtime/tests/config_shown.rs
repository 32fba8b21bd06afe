//! The effective configuration and the reference page.

use expect_test::{expect, expect_file};

use crate::parse;
use cdc_runtime::Config;

#[test]
fn defaults_are_those_of_the_contract() {
    let text = "{ storage: { path: /srv/lake }, source: {}, governance: {} }";
    expect![""].assert_eq(&parse(text).unwrap().effective_yaml());
}

#[test]
fn secrets_are_never_shown() {
    let config = parse(
        "
storage: { path: /srv/lake }
source: { postgres: { url: 'postgresql://u:hunter2@h/d' } }
catalog: { token: hunter2, credential: 'id:hunter2' }
rest: { bearer_token: hunter2 }
",
    )
    .unwrap();
    let shown = config.effective_yaml();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("url: '***'"), "{shown}");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn what_is_shown_can_be_read_again() {
    let config = parse("{ storage: { path: /srv/lake }, catalog: { type: glue, database: d } }");
    let shown = config.unwrap().effective_yaml();
    assert_eq!(parse(&shown).unwrap().effective_yaml(), shown);
}

#[test]
fn the_reference_page_matches_the_model() {
    expect_file!["../../../docs/reference/configuration.md"]
        .assert_eq(&Config::reference_markdown());
}
