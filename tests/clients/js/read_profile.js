// Reads a pprof file with the npm package `pprof-format` of the folder that is named first, and prints what it read as JSON: the
// values' types and units, their sums, the period, and each folded stack with its count.
const fs = require('node:fs');
const zlib = require('node:zlib');

const [folder, file] = process.argv.slice(2);
const { Profile } = require(require.resolve('pprof-format', { paths: [folder] }));
const profile = Profile.decode(zlib.gunzipSync(fs.readFileSync(file)));
const text = (index) => profile.stringTable.strings[Number(index)];
const functions = new Map(profile.function.map((it) => [String(it.id), it]));
const locations = new Map(profile.location.map((it) => [String(it.id), it]));

const stacks = {};
const sums = profile.sampleType.map(() => 0n);
const lines = new Set();
for (const sample of profile.sample) {
  sample.value.forEach((value, at) => (sums[at] += BigInt(value)));
  const thread = sample.label.find((label) => text(label.key) === 'thread');
  const frames = [text(thread.str)];
  // The leaf comes first, and what was inlined before what it was inlined into.
  for (const id of [...sample.locationId].reverse()) {
    for (const line of [...locations.get(String(id)).line].reverse()) {
      const called = functions.get(String(line.functionId));
      frames.push(text(called.name));
      lines.add(`${text(called.filename)}:${line.line}`);
    }
  }
  const folded = frames.join(';');
  stacks[folded] = (stacks[folded] ?? 0) + Number(sample.value[0]);
}
const types = profile.sampleType.map((it) => `${text(it.type)}/${text(it.unit)}`);
const period = `${text(profile.periodType.type)}/${text(profile.periodType.unit)}`;
const shown = { types, sums: sums.map(Number), period: [period, Number(profile.period)], stacks, lines: [...lines] };
process.stdout.write(JSON.stringify(shown));
