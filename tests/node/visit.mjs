// What every client does here: list the tools, call one, call one that reports progress, call one that fails, call
// another. The task comes as one JSON argument: { url, bearer?, mode?, call?, progress?, failing, again? }, where the
// last four are { name, arguments }. What was seen goes to stdout as one line of JSON.

export const task = JSON.parse(process.argv[2]);

export const transportOptions = task.bearer ? { requestInit: { headers: { Authorization: `Bearer ${task.bearer}` } } } : {};

const textOf = (result) => result.content.map((item) => item.text ?? item.type).join('\n');

/** `seen` is what connecting showed; `call(params, options)` calls a tool. */
export async function visit(client, seen, call) {
  seen.server = client.getServerVersion()?.name;
  seen.tools = (await client.listTools()).tools.map((tool) => tool.name);
  if (task.call) seen.text = textOf(await call(task.call));
  if (task.progress) {
    seen.progress = [];
    const onprogress = ({ progress, total }) => seen.progress.push([progress, total]);
    seen.progressText = textOf(await call(task.progress, { onprogress }));
  }
  try {
    const result = await call(task.failing);
    seen.failure = { isError: result.isError === true, text: textOf(result) };
  } catch (error) {
    seen.failure = { isError: true, code: error.code, text: error.message };
  }
  if (task.again) seen.again = textOf(await call(task.again));
  await client.close();
  console.log(JSON.stringify(seen));
}
