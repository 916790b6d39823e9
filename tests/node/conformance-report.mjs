// Compares what the conformance suite wrote with the baseline: conformance-report.mjs BASELINE RESULTS
//
// RESULTS has one folder per backend, in it one per revision, and in that one per scenario with its checks.json. The
// baseline maps each backend and revision to { scenario: reason } for the scored scenarios that do not pass. The scenarios
// of the tasks extension, which the suite does not score, are scored of a backend that has tasks.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

const [baselineFile, results] = process.argv.slice(2);
const baseline = JSON.parse(readFileSync(baselineFile, 'utf8'));
const suite = join(import.meta.dirname, 'node_modules/@modelcontextprotocol/conformance');

let passedInAll = 0;
let knownInAll = 0;
let newInAll = 0;
const problems = [];

for (const backend of readdirSync(results).sort()) {
  for (const revision of readdirSync(join(results, backend)).sort()) {
    const { server: scored, not_scored: unscored } = parse(
      readFileSync(join(suite, 'requirements', `${revision}.yaml`), 'utf8'),
    );
    const hasTasks = backend.startsWith('tasks-') || backend === 'http';
    const isWanted = ({ scenario }) => hasTasks && scenario.startsWith('tasks-');
    const others = (unscored ?? []).filter(({ leg }) => leg === 'server');
    const wanted = [...scored, ...others.filter(isWanted).map(({ scenario }) => scenario)];
    judge(`${backend} ${revision}`, wanted, baseline[backend]?.[revision] ?? {}, join(results, backend, revision));
    listUnscored(`${backend} ${revision}`, others.filter((other) => !isWanted(other)), join(results, backend, revision));
  }
}

for (const problem of problems) console.log(problem);
console.log(`${knownInAll} in the baseline, not passing yet`);
console.log(`${passedInAll} passed, ${newInAll} failed`);
process.exitCode = problems.length > 0 || passedInAll === 0 ? 1 : 0;

/** Compares the scored scenarios with the baseline. */
function judge(run, scored, reasons, folder) {
  const checks = checksByScenario(folder);
  let passed = 0;
  for (const scenario of scored) {
    const failures = failuresOf(checks.get(scenario));
    if (failures.length === 0) {
      passed += 1;
      if (reasons[scenario]) problems.push(`${run} ${scenario} passes: take it out of the baseline`);
    } else if (!reasons[scenario]) {
      newInAll += 1;
      problems.push(`${run} ${scenario} fails and is not in the baseline`);
      for (const { id, errorMessage } of failures) problems.push(`    ${id}: ${errorMessage ?? ''}`);
    } else {
      knownInAll += 1;
      console.log(`${run} ${scenario}: in the baseline, ${reasons[scenario]}`);
    }
  }
  for (const scenario of Object.keys(reasons)) {
    if (!scored.includes(scenario)) problems.push(`${run} ${scenario} is in the baseline, but is no scored scenario`);
  }
  console.log(`${run}: ${passed} of ${scored.length} scored scenarios pass`);
  passedInAll += passed;
}

function listUnscored(run, entries, folder) {
  const checks = checksByScenario(folder);
  for (const { scenario, reason } of entries) {
    const count = (status) => (checks.get(scenario) ?? []).filter((check) => check.status === status).length;
    const result = checks.has(scenario)
      ? `${count('SUCCESS')} checks pass, ${count('FAILURE')} fail, ${count('SKIPPED')} skipped`
      : 'did not finish';
    console.log(`${run} ${scenario}: not scored (${reason}), ${result}`);
  }
}

function failuresOf(checks) {
  return (checks ?? [{ id: 'did not finish', status: 'FAILURE' }]).filter(({ status }) => status === 'FAILURE');
}

/** Folders are called server-SCENARIO-TIME; one whose scenario broke off holds nothing. */
function checksByScenario(folder) {
  const byScenario = new Map();
  for (const name of readdirSync(folder)) {
    const scenario = /^server-(.*)-\d{4}-\d\d-\d\dT/.exec(name)?.[1];
    const file = join(folder, name, 'checks.json');
    if (scenario && existsSync(file)) byScenario.set(scenario, JSON.parse(readFileSync(file, 'utf8')));
  }
  return byScenario;
}
