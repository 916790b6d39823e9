//! Where a token meets a template: one launch plan for one user, zeroed when it is dropped.

use std::ffi::OsString;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::{Zeroize, Zeroizing};

use super::hole::Unfit;
use super::input::{Input, Inputs};
use super::{MAX_VALUE, Template};
use crate::config::{
    ContainerLaunch, HttpLaunch, HttpPlan, Late, LateName, Launch, Plan, Server, StdioLaunch, StdioPlan, TokenFile,
    WithoutToken,
};
use crate::secret::Secret;

/// The most that all arguments and the environment may take, bytes, each with its NUL and its pointer. The system's
/// own bound is a quarter of the stack limit: 2 MiB by default.
pub const MAX_LAUNCH: usize = 1 << 20;

/// Why a launch plan cannot be filled. Fields are named, values never.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// There is nothing to fill a hole with.
    #[error("`{field}` needs {input} and there is none")]
    Missing {
        /// The field.
        field: String,
        /// What it is filled with.
        input: String,
    },
    /// Nobody vouches for an email address of the user, and the server needs one.
    #[error("this server needs your email address, and nothing that you sign in with here vouches for one")]
    NoEmail,
    /// A value holds NUL.
    #[error("{input} holds NUL, which `{field}` cannot hold")]
    Nul {
        /// The field.
        field: String,
        /// What it is filled with.
        input: String,
    },
    /// A value holds what a header's cannot.
    #[error("{input} holds characters that the header `{field}` cannot hold")]
    Header {
        /// The field.
        field: String,
        /// What it is filled with.
        input: String,
    },
    /// A value would climb the path of a URL.
    #[error("{input} would change the path of `{field}`")]
    Dots {
        /// The field.
        field: String,
        /// What it is filled with.
        input: String,
    },
    /// The value is longer than [`MAX_VALUE`].
    #[error("`{field}` would be longer than {MAX_VALUE} bytes")]
    TooLong {
        /// The field.
        field: String,
    },
    /// Arguments and environment together are longer than [`MAX_LAUNCH`].
    #[error("arguments and environment together would be longer than {MAX_LAUNCH} bytes")]
    OverBudget,
}

impl FillError {
    fn new(unfit: Unfit, input: &Input, field: String) -> Self {
        let called = input.to_string();
        match unfit {
            Unfit::Missing if *input == Input::Email => Self::NoEmail,
            Unfit::Missing => Self::Missing { field, input: called },
            Unfit::Nul => Self::Nul { field, input: called },
            Unfit::Header => Self::Header { field, input: called },
            Unfit::Dots => Self::Dots { field, input: called },
        }
    }
}

impl Server {
    /// The launch plan for one request: the only place where a token meets a template.
    ///
    /// # Errors
    /// Names the field and what does not fit it, never the value.
    pub fn fill(&self, inputs: &Inputs) -> Result<Launch, FillError> {
        let is_there = self.is_there(inputs);
        match &self.plan {
            Plan::Stdio(plan) => plan.fill(inputs, is_there).map(Launch::Stdio),
            Plan::Container(plan) => plan.client.fill(inputs, is_there).map(|client| {
                let (engine, options_at) = (Arc::clone(&plan.engine), plan.options_at);
                Launch::Container(ContainerLaunch { engine, client, options_at })
            }),
            Plan::Http(plan) => plan.fill(inputs, is_there).map(Launch::Http),
        }
    }

    /// What would hold something that the user has not saved is left out of a server that may start without it.
    fn is_there(&self, inputs: &Inputs) -> impl Fn(&Template) -> bool + use<> {
        let starts_without = self.without_token == WithoutToken::Start && inputs.credential.is_none();
        move |template| !(starts_without && template.takes_credential())
    }

    /// What can be started before anybody asks: the same bytes for everybody. It is given nothing of a user, so nothing
    /// of one can be in it. What is missing is in [`Server::late`]. `None` if not all of that could be given to it later,
    /// or nothing is started here.
    #[must_use]
    pub fn early(&self) -> Option<Launch> {
        match &self.plan {
            Plan::Stdio(plan) => plan.early().map(Launch::Stdio),
            Plan::Container(plan) => plan.client.early().map(|client| {
                let (engine, options_at) = (Arc::clone(&plan.engine), plan.options_at);
                Launch::Container(ContainerLaunch { engine, client, options_at })
            }),
            Plan::Http(_) => None,
        }
    }

    /// The names of the variables that [`Server::early`] leaves out.
    #[must_use]
    pub fn late_names(&self) -> Vec<LateName<'_>> {
        let may_lack = self.without_token == WithoutToken::Start;
        let variables = self.plan.process().into_iter().flat_map(|process| &process.env);
        let late = variables.filter(|(_, value)| value.has_holes());
        late.map(|(name, value)| LateName { name, is_sure: !(may_lack && value.takes_credential()) }).collect()
    }

    /// What one request gives to a server that was started from [`Server::early`].
    ///
    /// # Errors
    /// As [`Server::fill`].
    pub fn late(&self, inputs: &Inputs) -> Result<Late, FillError> {
        let process = self.plan.process().filter(|_| self.spares.is_some());
        let env = process.map(|process| process.late(inputs, self.is_there(inputs))).transpose()?;
        Ok(Late { env: env.unwrap_or_default(), credential: inputs.credential.clone() })
    }
}

impl StdioPlan {
    fn early(&self) -> Option<StdioLaunch> {
        if !self.token_files.is_empty() {
            return None;
        }
        let fixed = |(name, value): &(String, Template)| Some((name.clone(), Secret::new(value.fixed_text()?)));
        Some(StdioLaunch {
            program: self.program.clone(),
            args: self.args.iter().map(|arg| arg.fixed_text().map(OsString::from)).collect::<Option<_>>()?,
            env: self.env.iter().filter_map(fixed).collect(),
            token_files: Vec::new(),
            cwd: self.cwd.clone(),
            confinement: self.confinement,
        })
    }

    /// The variables that [`StdioPlan::early`] leaves out. `is_there` says which of them there are.
    fn late(&self, inputs: &Inputs, is_there: impl Fn(&Template) -> bool) -> Result<Vec<(String, Secret)>, FillError> {
        let (late, early): (Vec<_>, Vec<_>) = self.env.iter().partition(|(_, value)| value.has_holes());
        let args = self.args.iter().map(|arg| cost(arg.fixed));
        let mut size = args.chain(early.iter().map(|(name, value)| cost(name.len() + 1 + value.fixed))).sum::<usize>();
        size += cost(self.program.as_os_str().len());
        let mut env = Vec::with_capacity(late.len());
        for (name, value) in late.into_iter().filter(|(_, value)| is_there(value)) {
            let text = value.fill_at(inputs, name.len() + 1, || format!("env.{name}"))?;
            size += cost(name.len() + 1 + text.expose().len());
            env.push((name.clone(), text));
        }
        if size > MAX_LAUNCH { Err(FillError::OverBudget) } else { Ok(env) }
    }

    /// `is_there` says which variables and files there are.
    fn fill(&self, inputs: &Inputs, is_there: impl Fn(&Template) -> bool) -> Result<StdioLaunch, FillError> {
        let mut launch = StdioLaunch {
            program: self.program.clone(),
            args: Vec::with_capacity(self.args.len()),
            env: Vec::with_capacity(self.env.len() + self.token_files.len()),
            token_files: Vec::with_capacity(self.token_files.len()),
            cwd: self.cwd.clone(),
            confinement: self.confinement,
        };
        let mut size = cost(self.program.as_os_str().len());
        for (index, arg) in self.args.iter().enumerate() {
            let text = arg.fill_at(inputs, 0, || format!("args[{index}]"))?;
            size += cost(text.expose().len());
            launch.args.push(OsString::from(text.expose()));
        }
        for (name, value) in self.env.iter().filter(|(_, value)| is_there(value)) {
            let text = value.fill_at(inputs, name.len() + 1, || format!("env.{name}"))?;
            size += cost(name.len() + 1 + text.expose().len());
            launch.env.push((name.clone(), text));
        }
        for file in self.token_files.iter().filter(|file| is_there(&file.content)) {
            let content = file.content.fill_at(inputs, 0, || format!("env.{}", file.variable))?;
            let (variable, directory) = (file.variable.clone(), file.directory.clone());
            launch.token_files.push(TokenFile { variable, directory, content });
        }
        if size > MAX_LAUNCH { Err(FillError::OverBudget) } else { Ok(launch) }
    }
}

/// What a string of this length takes of the budget: itself, its NUL and its pointer.
fn cost(length: usize) -> usize {
    length + 1 + size_of::<usize>()
}

impl HttpPlan {
    /// The same for a request that is no server's.
    ///
    /// # Errors
    /// As [`Server::fill`].
    pub fn fill_request(&self, inputs: &Inputs) -> Result<HttpLaunch, FillError> {
        self.fill(inputs, |_| true)
    }

    /// `is_there` says which headers there are.
    fn fill(&self, inputs: &Inputs, is_there: impl Fn(&Template) -> bool) -> Result<HttpLaunch, FillError> {
        let url = self.url.fill_at(inputs, 0, || "url".to_owned())?;
        let headers = self.headers.iter().filter(|(_, value)| is_there(value)).map(|(name, value)| {
            let field = || format!("headers.{name}");
            let text = value.fill_at(inputs, 0, field)?;
            // The bytes belong to an owner that zeroes them when the last copy of the header is dropped.
            let owner = Zeroizing::new(text.expose().as_bytes().to_vec());
            let mut value = http::HeaderValue::from_maybe_shared(Bytes::from_owner(owner))
                .map_err(|_| FillError::Header { field: field(), input: "its value".to_owned() })?;
            value.set_sensitive(true);
            Ok((name.clone(), value))
        });
        Ok(HttpLaunch { url, headers: headers.collect::<Result<_, _>>()?, transport: self.transport })
    }
}

impl Template {
    /// The text for one request, at most [`MAX_VALUE`] bytes with the `beside` it that count too.
    fn fill_at(&self, inputs: &Inputs, beside: usize, field: impl Fn() -> String) -> Result<Secret, FillError> {
        match self.fill(inputs) {
            Ok(text) if beside + text.expose().len() <= MAX_VALUE => Ok(text),
            Ok(_) => Err(FillError::TooLong { field: field() }),
            Err((unfit, input)) => Err(FillError::new(unfit, input, field())),
        }
    }
}

impl Drop for StdioLaunch {
    fn drop(&mut self) {
        for arg in &mut self.args {
            std::mem::take(arg).into_encoded_bytes().zeroize();
        }
    }
}

#[cfg(test)]
mod tests;
