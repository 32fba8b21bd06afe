//! What holds of every policy: grants only add, revoking and requiring only take away, nobody sees
//! what has no tags by tags, and explaining agrees with deciding.

use std::collections::{BTreeMap, BTreeSet};

use cdc_core::FieldId;
use cdc_governance::{
    CellView, Enforced, Grant, Hidden, Identity, Intent, Mode, Policy, PolicySettings, Resource,
    ResourceState, TableAccess, TableShape, TagWord, Tags, Value, Verdict, effective, explain,
};
use chrono::TimeDelta;
use proptest::prelude::*;

use crate::world::{TABLE, caller, shape, start, terms, with_filter, with_mask};

const COLUMNS: [&str; 3] = ["id", "email", "name"];
const LEVELS: [&str; 6] = [
    "app",
    "app.public",
    TABLE,
    "app.public.users.id",
    "app.public.users.email",
    "app.public.users.name",
];
const KEYS: [&str; 2] = ["sensitivity", "domain"];
const VALUES: [&str; 3] = ["public", "pii", "unclassified"];
const PRINCIPALS: [&str; 2] = ["user:ana", "user:bob"];
const FILTERS: [&str; 4] = ["id > 5", "name = 'a'", "name IS NULL", "nothing = 1"];
const MASKS: [&str; 4] = ["null", "hash", "partial:2", "constant:7"];

#[derive(Clone, Debug)]
struct Case {
    tags: BTreeMap<(usize, usize), usize>,
    missing: BTreeSet<usize>,
    grants: Vec<Grant>,
    required: BTreeSet<usize>,
}

fn grants() -> impl Strategy<Value = Grant> {
    let targets = prop_oneof![
        (0..LEVELS.len()).prop_map(|at| format!("on {}", LEVELS[at])),
        (0..COLUMNS.len()).prop_map(|at| format!("on {TABLE} ({})", COLUMNS[at])),
        (0..COLUMNS.len()).prop_map(|at| format!("on {TABLE} except ({})", COLUMNS[at])),
        (0..KEYS.len(), 0..2_usize).prop_map(|(k, v)| format!("where {}={}", KEYS[k], VALUES[v])),
        Just("where sensitivity=public|pii,domain=public".to_owned()),
        Just("database where sensitivity=public".to_owned()),
    ];
    let permissions = prop_oneof![3 => Just("SELECT"), 1 => Just("DESCRIBE"), 1 => Just("SELECT+CHANGES"), 1 => Just("CHANGES")];
    let extra =
        (prop::option::of(0..FILTERS.len()), prop::option::of((0..3_usize, 0..MASKS.len())));
    let time = prop_oneof![3 => Just(None), 1 => Just(Some(-1_i64)), 1 => Just(Some(1))];
    (0..2_usize, permissions, targets, extra, time, any::<bool>()).prop_map(
        |(who, permissions, target, (filter, mask), expiry, emergency)| {
            let mut terms = terms(PRINCIPALS[who], permissions, &target);
            if let Some(at) = filter {
                terms = with_filter(terms, FILTERS[at]);
            }
            if let Some((column, mask)) = mask {
                terms = with_mask(terms, COLUMNS[column], MASKS[mask]);
            }
            terms.expires_at = expiry.map(|seconds| start() + TimeDelta::seconds(seconds));
            Grant { id: String::new(), terms, unsupported: None, emergency }
        },
    )
}

fn cases() -> impl Strategy<Value = Case> {
    let tags = prop::collection::btree_map(
        (0..LEVELS.len(), 0..KEYS.len()),
        prop_oneof![4 => 0..2_usize, 1 => Just(2_usize)],
        0..8,
    );
    let missing = prop::collection::btree_set(3..LEVELS.len(), 0..2);
    let grants = prop::collection::vec(grants(), 0..8);
    let required = prop::collection::btree_set(0..KEYS.len(), 0..2);
    (tags, missing, grants, required).prop_map(|(tags, missing, mut grants, required)| {
        for (at, grant) in grants.iter_mut().enumerate() {
            grant.id = format!("g{at}");
        }
        Case { tags, missing, grants, required }
    })
}

impl Case {
    fn policy(&self) -> Policy {
        let mut resources = Vec::new();
        for (at, name) in LEVELS.iter().enumerate() {
            if self.missing.contains(&at) {
                continue;
            }
            let own = self.tags.iter().filter(|((level, _), _)| *level == at);
            let tags = own.map(|((_, key), value)| (KEYS[*key], VALUES[*value]));
            resources.push(Resource {
                id: name.parse().expect("the suite is consistent"),
                state: ResourceState::Active,
                identity: match at {
                    2 => Some(Identity::Relation(7)),
                    3.. => Some(Identity::Field(FieldId(97 + at as i32))),
                    _ => None,
                },
                tags: Tags::parse(tags).expect("the suite is consistent"),
                version: 0,
                policy_changed_at: 1,
                last_intent_at: start(),
                last_intent_by: String::new(),
                last_intent_reason: String::new(),
                last_applied_epoch: None,
            });
        }
        let grants = self.grants.clone();
        let intent = Intent { policy_version: 3, time_high_water: start(), resources, grants };
        Policy::new(intent, Enforced::default())
    }

    fn settings(&self) -> PolicySettings {
        let require_tags = self
            .required
            .iter()
            .map(|key| KEYS[*key].parse().expect("the suite is consistent"))
            .collect();
        PolicySettings { mode: Mode::Strict, require_tags }
    }

    fn verdict(&self) -> Verdict {
        let users = users();
        let ana = caller("user:ana");
        effective(Some(&self.policy()), &self.settings(), &ana, Some(&users), start())
    }
}

fn users() -> TableShape {
    shape(TABLE, &COLUMNS)
}

/// How much of each cell is shown, in rows that differ in all that the filters ask: 0 is nothing.
fn cells(verdict: &Verdict) -> BTreeMap<(usize, &'static str), u8> {
    let Verdict::Allow(access) = verdict else { return BTreeMap::new() };
    let number = |n: &str| Value::Number(n.to_owned());
    let text = |t: &str| Value::Text(t.to_owned());
    let rows = [
        (number("9"), text("a")),
        (number("1"), text("b")),
        (number("9"), Value::Null),
        (Value::Null, text("a")),
    ];
    let mut shown = BTreeMap::new();
    for (at, (id, name)) in rows.iter().enumerate() {
        let row = |column: &str| match column {
            "id" => id.clone(),
            "name" => name.clone(),
            _ => Value::Null,
        };
        let truths: Vec<Option<bool>> = access.filters().iter().map(|f| f.eval(&row)).collect();
        for column in COLUMNS {
            let degree = access.column(column).map_or(0, |seen| degree(seen.cell(&truths)));
            shown.insert((at, column), degree);
            assert!(degree == 0 || access.shows_row(&truths), "a cell of an invisible row");
        }
    }
    shown
}

fn degree(view: CellView<'_>) -> u8 {
    match view {
        CellView::Hidden => 0,
        CellView::Masked(mask) => {
            let order = ["null", "constant:7", "hash", "partial:2"];
            1 + order
                .iter()
                .position(|text| *text == mask.to_string())
                .expect("the suite is consistent") as u8
        }
        CellView::Clear => 9,
    }
}

/// Whether everything that `less` shows is shown by `more` too.
fn within(less: &Verdict, more: &Verdict) -> bool {
    let more_cells = cells(more);
    let feeds = |verdict: &Verdict| matches!(verdict, Verdict::Allow(access) if access.changes());
    (!feeds(less) || feeds(more))
        && cells(less)
            .iter()
            .all(|(cell, degree)| more_cells.get(cell).copied().unwrap_or(0) >= *degree)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn without_grants_there_is_nothing(case in cases()) {
        let bare = Case { grants: Vec::new(), ..case };
        prop_assert!(!matches!(bare.verdict(), Verdict::Allow(_)));
    }

    #[test]
    fn adding_a_grant_never_removes_a_cell_and_revoking_never_adds_one(case in cases(), at in 0..8_usize) {
        prop_assume!(at < case.grants.len());
        let mut revoked = case.clone();
        revoked.grants.remove(at);
        prop_assert!(within(&revoked.verdict(), &case.verdict()));
    }

    #[test]
    fn a_grant_to_somebody_else_changes_nothing(case in cases(), mut grant in grants()) {
        grant.id = "other".to_owned();
        grant.terms.principal = "user:bob".parse().expect("the suite is consistent");
        let mut more = case.clone();
        more.grants.push(grant);
        prop_assert_eq!(case.verdict(), more.verdict());
    }

    #[test]
    fn adding_a_required_tag_never_adds_a_cell(case in cases(), key in 0..KEYS.len()) {
        let mut stricter = case.clone();
        stricter.required.insert(key);
        prop_assert!(within(&stricter.verdict(), &case.verdict()));
    }

    #[test]
    fn the_order_of_grants_is_irrelevant(case in cases()) {
        let mut reversed = case.clone();
        reversed.grants.reverse();
        prop_assert_eq!(case.verdict(), reversed.verdict());
    }

    #[test]
    fn what_has_no_tags_is_invisible_to_tag_grants(case in cases()) {
        let mut bare = Case { tags: BTreeMap::new(), ..case };
        bare.grants.retain(|grant| matches!(grant.terms.target, cdc_governance::Target::TagPolicy { .. }));
        prop_assert!(!matches!(bare.verdict(), Verdict::Allow(_)));
    }

    #[test]
    fn what_is_unclassified_is_invisible_whatever_the_grants(case in cases(), column in 0..3_usize) {
        let mut case = case;
        case.tags.insert((3 + column, 0), 2);
        let verdict = case.verdict();
        let shows = matches!(&verdict, Verdict::Allow(access) if access.column(COLUMNS[column]).is_some());
        prop_assert!(!shows);
    }

    #[test]
    fn explaining_agrees_with_deciding(case in cases()) {
        let users = users();
        let explained = explain(&case.policy(), &case.settings(), &caller("user:ana"), &users, start());
        let verdict = case.verdict();
        prop_assert_eq!(&explained.verdict, &verdict);
        let decided = |name: &str| match &verdict {
            Verdict::Allow(access) => access.column(name).map(|column| {
                column.rules.iter().map(|rule| rule.grant.clone()).collect::<Vec<_>>()
            }),
            _ => None,
        };
        for (name, why) in &explained.columns {
            prop_assert_eq!(why.clone().ok(), decided(name));
        }
    }

    #[test]
    fn whether_a_row_shows_follows_from_its_cells(case in cases()) {
        cells(&case.verdict());
    }

    #[test]
    fn an_unreadable_policy_is_unavailable_for_every_name(case in cases()) {
        let settings = case.settings();
        for table in [Some(&users()), None] {
            let verdict = effective(None, &settings, &caller("user:ana"), table, start());
            prop_assert_eq!(verdict, Verdict::Unavailable);
        }
        let policy = case.policy();
        let verdict = effective(Some(&policy), &settings, &caller("user:ana"), None, start());
        prop_assert_eq!(verdict, Verdict::NotFound(Hidden::Absent));
    }

    #[test]
    fn an_access_includes_itself(case in cases()) {
        if let Verdict::Allow(access) = case.verdict() {
            prop_assert!(TableAccess::includes(&access, &access));
        }
    }

    #[test]
    fn resource_texts_round_trip(parts in prop::collection::vec("\\PC{1,6}|[.%/#\u{0}-\u{1f}a]{1,4}", 1..5)) {
        let mut id: cdc_governance::ResourceId = "x".parse().expect("the suite is consistent");
        for part in parts.iter().take(3) {
            id = id.child(part).expect("the suite is consistent");
        }
        prop_assert_eq!(id.to_string().parse::<cdc_governance::ResourceId>().expect("the suite is consistent"), id);
    }

    #[test]
    fn parsers_never_panic(text in "\\PC{0,40}|[a-z'\"()=<>!,.%0-9 -]{0,40}") {
        let _ = text.parse::<cdc_governance::ResourceId>();
        let _ = text.parse::<cdc_governance::RowFilter>();
        let _ = text.parse::<cdc_governance::TagExpression>();
        let _ = text.parse::<cdc_governance::Mask>();
        let _ = text.parse::<TagWord>();
    }
}
