//! `OpenMetrics` text in the form that came before it. Source: Prometheus, "Exposition formats", text-based format 0.0.4.

/// The same metrics in that form. A counter is called there what its only sample is called, and there is no end mark.
pub(super) fn plain(openmetrics: &str) -> String {
    let counters: Vec<&str> =
        openmetrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(openmetrics.len() + 6 * 2 * counters.len());
    for line in openmetrics.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let about = ["# HELP ", "# TYPE "].into_iter().find_map(|word| Some((word, line.strip_prefix(word)?)));
        match about.and_then(|(word, rest)| Some((word, rest.split_once(' ')?))) {
            Some((word, (name, rest))) if counters.contains(&name) => {
                text.extend([word, name, "_total ", rest, "\n"]);
            }
            _ => text.extend([line, "\n"]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_the_name_of_their_sample_and_nothing_marks_the_end() {
        let open =
            "# HELP a Some a.\n# TYPE a counter\na_total 1\n# HELP b B.\n# TYPE b gauge\nb{x=\"# EOF\"} 2\n# EOF\n";
        let text = "# HELP a_total Some a.\n# TYPE a_total counter\na_total 1\n# HELP b B.\n# TYPE b gauge\nb{x=\"# EOF\"} 2\n";
        assert_eq!(plain(open), text);
    }
}
