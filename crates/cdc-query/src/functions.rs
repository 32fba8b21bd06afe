//! The functions that SQL may call, by name. Whatever the engine gains in a later version stays
//! out until it is listed here.
//!
//! Left out on purpose: functions that tell where data lies (`input_file_name`), what runs
//! (`version`), that read settings, that differ from call to call (`random`, `uuid`), and those
//! whose result can be much larger than their arguments (`repeat`, `lpad`, `range`, `array_repeat`).

use std::sync::Arc;

use datafusion::functions_nested;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

const SCALAR: &[&str] = &[
    // conditional
    "coalesce",
    "nullif",
    "nvl",
    "nvl2",
    "greatest",
    "least",
    // text
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "chr",
    "concat",
    "concat_ws",
    "contains",
    "ends_with",
    "initcap",
    "left",
    "length",
    "lower",
    "ltrim",
    "octet_length",
    "overlay",
    "position",
    "reverse",
    "right",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substring",
    "to_hex",
    "translate",
    "trim",
    "upper",
    "replace",
    // regular expressions (linear time)
    "regexp_count",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    // dates and times
    "date_bin",
    "date_part",
    "date_trunc",
    "from_unixtime",
    "make_date",
    "now",
    "current_date",
    "current_time",
    "to_char",
    "to_date",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_seconds",
    "to_unixtime",
    // numbers
    "abs",
    "acos",
    "asin",
    "atan",
    "atan2",
    "cbrt",
    "ceil",
    "cos",
    "degrees",
    "exp",
    "floor",
    "gcd",
    "isnan",
    "iszero",
    "lcm",
    "ln",
    "log",
    "log10",
    "log2",
    "nanvl",
    "pi",
    "power",
    "radians",
    "round",
    "signum",
    "sin",
    "sqrt",
    "tan",
    "trunc",
    // types
    "arrow_cast",
    "arrow_typeof",
    // lists, reading only
    "array_distinct",
    "array_element",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_length",
    "array_max",
    "array_min",
    "array_ndims",
    "array_position",
    "array_slice",
    "array_sort",
    "array_to_string",
    "cardinality",
    "empty",
    "make_array",
    "get_field",
];

const AGGREGATE: &[&str] = &[
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "first_value",
    "last_value",
    "max",
    "median",
    "min",
    "nth_value",
    "percentile_cont",
    "regr_slope",
    "regr_intercept",
    "regr_r2",
    "regr_count",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "array_agg",
    "sum",
    "var",
    "var_pop",
    "var_samp",
    "var_sample",
    "grouping",
];

const WINDOW: &[&str] = &[
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "nth_value",
    "ntile",
    "percent_rank",
    "rank",
    "row_number",
];

/// The scalar functions of the allow-list.
pub(crate) fn scalar() -> Vec<Arc<ScalarUDF>> {
    let plain = datafusion::functions::all_default_functions();
    let nested = functions_nested::all_default_nested_functions();
    let all = plain.into_iter().chain(nested);
    all.filter(|function| SCALAR.contains(&function.name())).collect()
}

/// The aggregates of the allow-list.
pub(crate) fn aggregate() -> Vec<Arc<AggregateUDF>> {
    let all = datafusion::functions_aggregate::all_default_aggregate_functions();
    all.into_iter().filter(|function| AGGREGATE.contains(&function.name())).collect()
}

/// The window functions of the allow-list.
pub(crate) fn window() -> Vec<Arc<WindowUDF>> {
    let all = datafusion::functions_window::all_default_window_functions();
    all.into_iter().filter(|function| WINDOW.contains(&function.name())).collect()
}
