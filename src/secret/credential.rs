//! What a user has saved for one server.

use std::fmt;
use std::sync::Arc;

use super::Secret;

/// A user's values for one server, by the names of its fields. Cloning it shares it.
#[derive(Clone)]
pub struct Credential {
    fields: Arc<[Field]>,
    /// Tells the record that the values are from.
    mark: u64,
}

/// One value.
pub struct Field {
    /// The field.
    pub name: Box<str>,
    /// What the user gave.
    pub value: Secret,
    /// Whether it must not be seen.
    pub is_secret: bool,
}

impl Credential {
    /// The name of the only value of a server that has no named fields.
    pub const TOKEN: &str = "token";

    /// The one value of a server that has no named fields.
    #[must_use]
    pub fn token(value: Secret) -> Self {
        Self::new(vec![Field { name: Self::TOKEN.into(), value, is_secret: true }])
    }

    /// These values, which are from no record.
    #[must_use]
    pub fn new(fields: Vec<Field>) -> Self {
        Self { fields: fields.into(), mark: 0 }
    }

    /// The same, from the record that `mark` tells from others.
    #[must_use]
    pub fn of_record(self, mark: u64) -> Self {
        Self { mark, ..self }
    }

    /// Tells the record that the values are from; 0 if they are from none.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// The value of the field `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.fields.iter().find(|field| *field.name == *name).map(|field| &field.value)
    }

    /// All values.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The values that must not be seen.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.fields.iter().filter(|field| field.is_secret).map(|field| &field.value)
    }
}

/// Names the fields and shows no value.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fields.iter().map(|field| &field.name)).finish()
    }
}
