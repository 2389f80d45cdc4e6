//! `policy test`: filters, coverage, thresholds and forms.

use serde_json::json;

use super::Bench;

const RULES: &str = "package mcp

permit contains {\"code\": \"reads\", \"message\": \"m\"} if input.operation.effect == \"read\"

permit contains {\"code\": \"never\", \"message\": \"m\"} if {
	input.operation.effect == \"write\"
	input.tool.name == \"x\"
}
";

const TESTS: &str = "package mcp_test

test_reads if {
	data.mcp.decision.effect == \"permit\" with input as {\"operation\": {\"effect\": \"read\"}}
}

test_other if {
	data.mcp.decision.effect == \"deny\" with input as {\"operation\": {\"effect\": \"exec\"}}
}
";

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("p/rules.rego", RULES);
    bench.write("p/rules_test.rego", TESTS);
    bench
}

#[test]
fn coverage_names_the_lines_that_no_test_comes_to() {
    let bench = bench();
    let (code, report) = bench.json(&["policy", "test", "-p", "p", "--format", "json"]);
    assert_eq!(code, 0);
    let files = report["coverage"].as_array().unwrap();
    assert_eq!(files.len(), 1, "what was not named does not count: {files:#?}");
    assert_eq!(files[0]["file"], "p/rules.rego");
    assert_eq!(files[0]["covered"], json!([3, 6]));
    assert_eq!(files[0]["not_covered"], json!([5, 7]));
    assert_eq!(report["percent"], 50.0);
    let (_, out, _) = bench.run(&["policy", "test", "-p", "p", "--coverage"]);
    assert!(
        out.contains("coverage: 50.0% of the lines\n   50.0%  p/rules.rego, not line 5, 7\n"),
        "{out}"
    );
}

#[test]
fn a_source_without_any_test_is_not_left_out() {
    let bench = bench();
    bench.write("p/other.rego", "package other\n\nx if {\n\tinput.a == 1\n}\n");
    let (_, report) = bench.json(&["policy", "test", "-p", "p", "--format", "json"]);
    let files = report["coverage"].as_array().unwrap();
    let other = files.iter().find(|file| file["file"] == "p/other.rego").unwrap();
    assert_eq!((&other["covered"], &other["percent"]), (&json!([]), &json!(0.0)));
    assert_eq!(other["not_covered"], json!([4]));
}

#[test]
fn a_threshold_fails_a_build_and_so_does_a_test() {
    let bench = bench();
    for (threshold, expected) in [("50", 0), ("50.1", 1)] {
        let (code, _, err) = bench.run(&["policy", "test", "-p", "p", "--threshold", threshold]);
        assert_eq!(code, expected, "{err}");
        assert_eq!(
            err.contains("error: coverage: 50.0% of the lines, under"),
            expected == 1,
            "{err}"
        );
    }
    assert_eq!(bench.run(&["policy", "test", "-p", "p", "--threshold", "101"]).0, 64);
    bench.write(
        "p/bad_test.rego",
        "package bad_test\n\ntest_no if 1 == 2\n\ntest_err if to_number(\"x\") == 1\n",
    );
    let (code, out, _) = bench.run(&["policy", "test", "-p", "p"]);
    assert_eq!(code, 1);
    assert!(out.contains("failed: data.bad_test.test_no (p/bad_test.rego): undefined"), "{out}");
}

#[test]
fn a_policy_that_cannot_be_loaded_fails_though_its_tests_pass() {
    let bench = bench();
    let vanishes = "deny contains {\"code\": \"d\"} if input.tool.arguments.a != \"b\"\n";
    bench.write("p/rules.rego", &[RULES, vanishes].concat());
    let (code, out, err) = bench.run(&["policy", "test", "-p", "p"]);
    assert_eq!((code, out.as_str()), (1, "16 of 16 tests passed\n"));
    assert!(err.starts_with("error: policy: p/rules.rego (line 9): "), "{err}");
    assert!(err.contains("hint: "), "{err}");
}

#[test]
fn only_the_tests_that_are_asked_for_run() {
    let bench = bench();
    let (code, out, _) = bench.run(&["policy", "test", "-p", "p", "--run", "test_rea", "-v"]);
    assert_eq!(code, 0);
    assert_eq!(out, "passed: data.mcp_test.test_reads (p/rules_test.rego)\n1 of 1 tests passed\n");
    assert_eq!(bench.run(&["policy", "test", "-p", "p", "--run", "no_such_test"]).0, 64);
}

#[test]
fn a_build_server_gets_junit() {
    let bench = bench();
    bench.write("p/a<&_test.rego", "package bad_test\n\ntest_no if to_number(\"x\") == 1\n");
    let args = ["policy", "test", "-p", "p", "--format", "junit"];
    let args = [&args[..], &["--run", "bad_test", "--run", "mcp_test.test_reads"]].concat();
    let (code, out, _) = bench.run(&args);
    assert_eq!(code, 1);
    let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="2" failures="1">
  <testsuite name="p/a&lt;&amp;_test.rego" tests="1" failures="1">
    <testcase classname="data.bad_test" name="test_no" file="p/a&lt;&amp;_test.rego">
      <failure message="p/a&lt;&amp;_test.rego:3: "#;
    assert!(out.starts_with(expected), "{out}");
    let passed =
        r#"<testcase classname="data.mcp_test" name="test_reads" file="p/rules_test.rego"/>"#;
    assert!(out.contains(passed), "{out}");
    assert!(out.ends_with("  </testsuite>\n</testsuites>\n"), "{out}");
}
