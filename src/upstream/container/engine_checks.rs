//! What the container engines of a configuration guarantee (`tollbridge doctor`), in sentences for people: they are asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::blocking_cleanup::call;
use crate::config::{Config, ContainerPlan, Engine, Plan};
use crate::upstream::process::host_checks::{Finding, Verdict};

/// How long an engine may take to answer one question.
const ANSWER: Duration = Duration::from_secs(5);

/// Whether each engine answers and can limit its containers, and whether the images are there.
#[must_use]
pub fn findings(config: &Config) -> Vec<Finding> {
    config.engines().iter().flat_map(|engine| of_engine(config, engine)).collect()
}

/// What an engine answers.
fn ask(engine: &Engine, arguments: &[&str]) -> Option<String> {
    call(engine, arguments, Instant::now() + ANSWER)
}

fn of_engine(config: &Config, engine: &Engine) -> Vec<Finding> {
    let plans = config.servers.values().filter_map(|server| match &server.plan {
        Plan::Container(plan) if *plan.engine == *engine => Some((server.name.as_str(), plan)),
        _ => None,
    });
    let plans: Vec<_> = plans.collect();
    let servers = plans.iter().map(|(server, _)| *server).collect::<Vec<_>>().join(", ");
    let name = format!("container engine {} of {servers}", engine.program.display());
    let finding = |verdict, text: &str| Finding { verdict, text: format!("{name}: {text}") };
    let about = ask(engine, &["info", "--format={{json .}}"]);
    let Some(about) = about.and_then(|said| About::read(&said)) else {
        return vec![finding(Verdict::Missing, "it does not answer; start it, and let this user reach it")];
    };
    let limits = if about.limits {
        finding(Verdict::Holds, "it answers, and keeps the limits of containers")
    } else {
        finding(
            Verdict::Weak,
            "it answers, but ignores at least one of `memory`, `cpus` and `pids`: it has no control group with all of them",
        )
    };
    let missing = missing_images(engine, &plans).into_iter().map(|(image, servers)| Finding {
        verdict: Verdict::Missing,
        text: format!("image {image} of {}: it is not there; run `tollbridge pull`", servers.join(", ")),
    });
    [limits].into_iter().chain(missing).collect()
}

/// The images that the engine does not have, and whose they are.
fn missing_images<'a>(engine: &Engine, plans: &[(&'a str, &ContainerPlan)]) -> BTreeMap<String, Vec<&'a str>> {
    let mut images = BTreeMap::<_, Vec<_>>::new();
    for (server, plan) in plans {
        images.entry(plan.image.fixed_text().unwrap_or_default()).or_default().push(*server);
    }
    images.retain(|image, _| ask(engine, &["image", "inspect", "--format={{.Id}}", image]).is_none());
    images
}

/// What an engine says of itself.
struct About {
    /// Whether it keeps all the limits that a container may have.
    limits: bool,
}

impl About {
    /// Of Docker and of podman; `None` if it is a client that has reached no engine.
    fn read(said: &str) -> Option<Self> {
        let said: Value = serde_json::from_str(said).ok()?;
        let limits = if let Some(controllers) = said["host"]["cgroupControllers"].as_array() {
            ["memory", "cpu", "pids"].iter().all(|name| controllers.iter().any(|controller| controller == name))
        } else {
            said["ServerVersion"].as_str().filter(|version| !version.is_empty())?;
            ["MemoryLimit", "CpuCfsQuota", "PidsLimit"].iter().all(|name| said[name] == true)
        };
        Some(Self { limits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(said: &str) -> Option<bool> {
        About::read(said).map(|about| about.limits)
    }

    #[test]
    fn an_engine_that_lacks_one_of_the_limits_is_told_of() {
        let docker =
            |pids| format!(r#"{{"ServerVersion":"28","MemoryLimit":true,"CpuCfsQuota":true,"PidsLimit":{pids}}}"#);
        assert_eq!((limits(&docker(true)), limits(&docker(false))), (Some(true), Some(false)));
        let podman = |controllers| format!(r#"{{"host":{{"cgroupControllers":{controllers}}}}}"#);
        let all = r#"["cpuset","cpu","io","memory","pids"]"#;
        assert_eq!(limits(&podman(all)), Some(true));
        assert_eq!(limits(&podman(r#"["memory","pids"]"#)), Some(false));
        assert_eq!(limits(&podman("[]")), Some(false));
    }

    #[test]
    fn a_client_without_its_engine_is_no_engine() {
        for said in ["", "{}", r#"{"ServerErrors":["Cannot connect"]}"#, r#"{"ServerVersion":"","MemoryLimit":false}"#]
        {
            assert_eq!(limits(said), None, "{said}");
        }
    }
}
