//! Documents: what one links to is there.

/// What is wrong with the links of the document `path`. Links to the outside are not followed.
pub(super) fn check(path: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    let mut code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        for link in links(line) {
            let file = link.split('#').next().unwrap_or_default();
            let outside = link.contains("://") || link.starts_with("mailto:");
            if !outside && !file.is_empty() && !exists(file) {
                problems.push(format!(
                    "{path}:{}: links to {file}, which is not there; write it or drop the link",
                    index + 1
                ));
            }
        }
    }
    problems
}

/// The targets of `[text](target)` in a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> usize {
        check("README.md", text, &|link| link == "there.md").len()
    }

    #[test]
    fn a_link_to_nothing_is_reported() {
        assert_eq!(problems("[a](there.md) and [b](there.md#part)"), 0);
        assert_eq!(problems("[a](there.md) and [b](gone.md)"), 1);
    }

    #[test]
    fn the_outside_this_page_and_code_are_left_alone() {
        assert_eq!(problems("[a](https://example.org/x) [b](#part)"), 0);
        assert_eq!(problems("```\na[0](gone)\n```\n"), 0);
    }
}
