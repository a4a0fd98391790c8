use serde::Deserialize;
use serde_json::json;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code)]
struct Settings {
    per_second: Rate,
    #[serde(default)]
    limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
#[allow(dead_code)]
struct Limits {
    #[serde(default)]
    bytes: u32,
}

/// From 1.
#[derive(Debug, Deserialize)]
#[serde(try_from = "u32")]
#[allow(dead_code)]
struct Rate(u32);

impl TryFrom<u32> for Rate {
    type Error = &'static str;

    fn try_from(rate: u32) -> std::result::Result<Self, &'static str> {
        if rate == 0 {
            Err("0 lets nothing through")
        } else {
            Ok(Self(rate))
        }
    }
}

fn of_settings() -> WorkerType {
    WorkerType::new("limiter", "Limits.", |_: Settings, _| Ok(())).unwrap()
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_with_the_name_of_the_field() {
    let limiter = of_settings();
    limiter.check(&json!({ "per-second": 3 })).unwrap();
    limiter
        .check(&json!({ "per-second": 3, "limits": { "bytes": 7 } }))
        .unwrap();
    for (config, expected) in [
        (json!({}), "missing field `per-second`"),
        (json!(null), "missing field `per-second`"),
        (json!([1]), "it must be a map"),
        (json!("text"), "it must be a map"),
        (
            json!({ "per-second": "x" }),
            "`per-second`: invalid type: string \"x\"",
        ),
        (json!({ "per-second": 0 }), "`per-second`: 0 lets nothing through"),
        (
            json!({ "per-second": 1, "per_second": 1 }),
            "there is no field `per_second`",
        ),
        (
            json!({ "per-second": 1, "limits": { "bytes": 1, "byte": 2 }, "x": 1 }),
            "there are no fields `limits.byte`, `x`",
        ),
        (
            json!({ "per-second": 1, "limits": { "bytes": -1 } }),
            "`limits.bytes`: invalid value: integer `-1`",
        ),
    ] {
        let error = limiter.check(&config).unwrap_err();
        assert_eq!(error.code, crate::ErrorCode::InvalidArgument);
        assert!(
            error.message.starts_with("the configuration of `limiter`: "),
            "{error}"
        );
        assert!(error.message.contains(expected), "{config}: {error}");
    }
    let long = json!({ "per-second": 1, "limits": "x".repeat(MAX_CONFIG) });
    assert!(limiter.check(&long).unwrap_err().message.contains("longer than"));
}

#[test]
fn a_type_without_settings_needs_no_configuration_and_takes_none() {
    #[derive(Deserialize)]
    struct Nothing {}
    let plain = WorkerType::new("plain", "", |_: Nothing, _| Ok(())).unwrap();
    plain.check(&Value::Null).unwrap();
    plain.check(&json!({})).unwrap();
    assert!(plain.check(&json!({ "a": 1 })).is_err());
}

#[test]
fn a_name_is_given_once_and_a_typing_error_finds_it() {
    let mut types = WorkerTypes::default();
    types.add(of_settings()).unwrap();
    assert!(types.add(of_settings()).unwrap_err().message.contains("already"));
    assert!(WorkerType::new("a b", "", |(): (), _| Ok(())).is_err());
    assert_eq!(
        types.known("limitre").unwrap_err().hint.unwrap(),
        "did you mean `limiter`?"
    );
}
