//! settled-cookbook(7): every shipped example is a recipe there, every recipe is a good configuration, and every command
//! line of any page is one that the program takes.

use super::*;
use toml::Table;

/// The literal blocks of a page, as the text that they show.
fn blocks(page: &str) -> Vec<String> {
    let parts = page.split(".Bd -literal").skip(1);
    parts
        .map(|part| {
            let (_, part) = part.split_once('\n').unwrap();
            plain(part.split("\n.Ed").next().unwrap())
        })
        .collect()
}

#[test]
fn every_shipped_example_is_a_recipe_and_every_recipe_is_good() {
    let page = read("man/settled-cookbook.7");
    let recipes: Vec<String> = blocks(&page)
        .into_iter()
        .filter(|block| block.starts_with('['))
        .collect();
    let parsed: Vec<Table> = recipes
        .iter()
        .map(|recipe| recipe.parse().unwrap_or_else(|e| panic!("{e}\n{recipe}")))
        .collect();
    let examples = files("packaging/examples", &[".toml"]);
    for file in &examples {
        let text = read(file);
        let example: Table = text.parse().unwrap();
        assert!(
            parsed.contains(&example),
            "{file} is no recipe of settled-cookbook(7), or another one there"
        );
        // The file says in its first line what it is for.
        assert!(text.starts_with("# "), "{file}");
    }
    assert_eq!(
        recipes.len(),
        examples.len(),
        "a recipe that is not shipped"
    );
    for recipe in &recipes {
        assert_good("a recipe of settled-cookbook(7)", recipe);
    }
}

#[test]
fn every_shipped_file_is_named_in_the_cookbook() {
    let page = read("man/settled-cookbook.7");
    let mut shipped = files("packaging/examples", &[""]);
    shipped.push("packaging/systemd/hardened.conf".into());
    for file in shipped {
        let name = file.rsplit('/').next().unwrap();
        let named = |line: &str| {
            line.strip_prefix(".Pa ")
                .is_some_and(|rest| rest.split(' ').next() == Some(name))
        };
        assert!(
            page.lines().any(named),
            "{file} is not named in settled-cookbook(7)"
        );
    }
}

/// A line of a shell as its words; quotes as far as the pages use them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '\'' => quote = !quote,
            ' ' if !quote => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_command_line_in_the_pages_is_one_that_the_program_takes() {
    let mut lines = 0;
    for file in files("man", &[".1", ".5", ".7", ".8"]) {
        let page = read(&file);
        let displayed = page.lines().filter_map(|line| line.strip_prefix(".Dl "));
        let displayed = displayed.map(plain);
        let blocks = blocks(&page);
        // Where a prompt is shown, what follows the others is output.
        let in_blocks = blocks.iter().flat_map(|block| {
            let prompt = if block.starts_with("$ ") { "$ " } else { "" };
            block
                .lines()
                .filter_map(move |line| line.strip_prefix(prompt))
                .map(str::to_owned)
        });
        for line in displayed.chain(in_blocks) {
            // What another program reads is not this one's.
            let line = line.split(" | ").next().unwrap();
            if !line.starts_with("settled ") {
                continue;
            }
            let taken = settled::cli::command().try_get_matches_from(words(line));
            assert!(taken.is_ok(), "{file}: {line}\n{}", taken.unwrap_err());
            lines += 1;
        }
    }
    assert!(lines > 8, "{lines}");
    let refused =
        settled::cli::command().try_get_matches_from(words("settled watch --no-such /srv -- true"));
    assert!(refused.is_err());
}
