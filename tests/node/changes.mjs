// What changes outside of a server's process, which any process of it can see.
import { existsSync, statSync } from 'node:fs';

const LOOK_MS = 50;

/** Until there is such a file. */
export async function until(file) {
  while (!existsSync(file)) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
}

/** Calls back whenever the file has been written since, until what it returns is called. Without a file: never. */
export function onChange(file, changed) {
  if (!file) return () => {};
  const writtenAt = () => statSync(file, { throwIfNoEntry: false })?.mtimeMs;
  let seen = writtenAt();
  const timer = setInterval(() => {
    const now = writtenAt();
    if (now !== seen) changed();
    seen = now;
  }, LOOK_MS);
  return () => clearInterval(timer);
}
