// A server of skills as the documentation of the TypeScript SDK 2.x has it, over stdio.
import { McpServer } from '@modelcontextprotocol/server';
import { memorySkillFiles, SkillsExtension } from '@modelcontextprotocol/server/ext/skills';
import { serveStdio } from '@modelcontextprotocol/server/stdio';

const skill = (name, text) => `---\nname: ${name}\ndescription: How to ${name}\nlicense: Apache-2.0\n---\n\n${text}\n`;
const files = memorySkillFiles({
  'refunds/SKILL.md': skill('refunds', 'Read `references/POLICY.md` first.'),
  'refunds/references/POLICY.md': '# Policy\n\nÜber 100 €: ask.\n',
  'git-workflow/SKILL.md': skill('git-workflow', 'Commit small.'),
});
const skills = await SkillsExtension.load(files, { cacheHint: { ttlMs: 300_000, cacheScope: 'public' } });

serveStdio(() => {
  const mcp = new McpServer({ name: 'skills', version: '1' });
  skills.attach(mcp);
  return mcp;
});
