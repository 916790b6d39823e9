// Compares what the conformance suite wrote with the baseline: conformance-report.mjs BASELINE RESULTS
//
// RESULTS has one folder per revision, and in it one per scenario with its checks.json. The baseline maps each revision to
// { scenario: reason } for the scored scenarios that do not pass yet.

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

for (const revision of readdirSync(results).filter((name) => /^\d{4}-\d\d-\d\d$/.test(name)).sort()) {
  const scored = parse(readFileSync(join(suite, 'requirements', `${revision}.yaml`), 'utf8')).server;
  const reasons = baseline[revision] ?? {};
  let passed = 0;
  const checks = checksByScenario(join(results, revision));
  for (const scenario of scored) {
    const failures = (checks.get(scenario) ?? [{ id: 'did not finish', status: 'FAILURE' }]).filter((c) => c.status === 'FAILURE');
    if (failures.length === 0) {
      passed += 1;
      if (reasons[scenario]) problems.push(`${revision} ${scenario} passes: take it out of the baseline`);
    } else if (!reasons[scenario]) {
      newInAll += 1;
      problems.push(`${revision} ${scenario} fails and is not in the baseline`);
      for (const { id, errorMessage } of failures) problems.push(`    ${id}: ${errorMessage ?? ''}`);
    } else {
      knownInAll += 1;
      console.log(`${revision} ${scenario}: not yet, ${reasons[scenario]}`);
    }
  }
  for (const scenario of Object.keys(reasons)) {
    if (!scored.includes(scenario)) problems.push(`${revision} ${scenario} is in the baseline, but is no scored scenario`);
  }
  console.log(`${revision}: ${passed} of ${scored.length} scored scenarios pass`);
  passedInAll += passed;
}

for (const problem of problems) console.log(problem);
console.log(`${knownInAll} in the baseline, not passing yet`);
console.log(`${passedInAll} passed, ${newInAll} failed`);
process.exitCode = problems.length > 0 || passedInAll === 0 ? 1 : 0;

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
