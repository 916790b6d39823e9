// What an official client does whose user has saved no token, in one session: see tests/connect/official.rs, which judges it.
//
// The task comes as one JSON argument: { url | command, pages, mode }. Each step goes to stdout as one line of JSON. An SDK's
// client is here an object with listTools(), call() and close().

export const task = JSON.parse(process.argv[2]);
export const about = { name: 'connect', version: '1.0.0' };
// Without pages it says nothing of them, as most clients do.
export const capabilities = task.pages ? { elicitation: { form: {}, url: {} } } : {};

const say = (step) => console.log(JSON.stringify(step));

/** What a person's application does with a link: it opens it, and goes on at once. */
export const visited = ({ params }) => {
  say({ visit: params.url });
  return { action: 'accept' };
};

let changed;
const toolsChanged = new Promise((resolve) => (changed = resolve));
export const listChanged = () => changed();
export const completed = ({ params }) => say({ completed: params.elicitationId });

export async function run(connect) {
  const client = await connect();
  say({ tools: await client.listTools() });
  const first = await client.call('whoami').catch(({ code, data }) => ({ code, data }));
  say({ first });
  if (first.isError !== false) {
    await toolsChanged;
    say({ tools: await client.listTools() });
    say({ second: await client.call('whoami') });
  }
  await client.close();
  process.exit(0);
}
