//! The recipes.
