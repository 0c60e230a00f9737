// The page of a run: the verdict, what happened to the orders meanwhile, and what was done to the stack.
{
  const { data } = Report;
  const SHADE_MS_MIN = 200;
  const seconds = (ms) => (ms / 1_000).toFixed(3);
  const good = data.wrong.length === 0;

  const verdict = Report.section("Verdict");
  verdict.append(Report.element("p", good ? "good" : "wrong", good
    ? "The books balance, every accepted order is there, and every event came in order."
    : `${data.wrong.length} thing(s) are wrong.`));
  for (const wrong of data.wrong) verdict.append(Report.element("p", "wrong", wrong));
  verdict.append(Report.element("p", "muted",
    `${data.faults} faults in ${seconds(data.duration_ms)} s, ${data.kills} processes killed, ${data.poison} unreadable ` +
    `message(s); everything had come to its end ${seconds(data.drained_ms)} s after the last one.`));
  verdict.append(Report.element("p", "muted", "Once more:"));
  verdict.append(Report.element("pre", "", data.command));

  const last_ms = data.samples.reduce((most, sample) => Math.max(most, sample.time_ms), data.duration_ms);
  // Only what ends processes is shaded: everything would be one grey.
  const shades = data.history
    .filter((entry) => / is killed$| dies at | ended by itself/.test(entry.what))
    .filter((entry) => entry.until_ms - entry.from_ms >= SHADE_MS_MIN)
    .map((entry) => ({ from_ms: entry.from_ms, to_ms: entry.until_ms, label: entry.what.split(" ")[0] }));
  const chart = (title, unit, series, more) => Report.chart({
    title, unit, from_ms: 0, to_ms: last_ms, zero_ms: 0, shades, height: 200,
    series: series.map(([name, slot, field]) => ({
      name, slot, points: data.samples.map((sample) => [sample.time_ms, sample[field]]),
    })),
    ...more,
  });
  chart("Orders", "per second", [["accepted", 1, "accepted"], ["paid", 2, "paid"]]);
  chart("Messages that wait", "messages", [["in all queues", 3, "queued"]]);
  chart("Answer to the customer", "ms",
    [["p50", 1, "latency_p50_ms"], ["p99", 4, "latency_p99_ms"]], { log: true });

  const figures = Report.section("The books at the end");
  const { sums } = data;
  Report.table(figures, [["", "count"],
    ["customers were told: accepted", data.accepted], ["customers were told nothing, or no", data.refused],
    ["synchronous tries refused, payment did not answer", sums.refused_tries],
    ["orders accepted", sums.accepted], ["paid", sums.paid], ["declined", sums.declined], ["cancelled", sums.cancelled],
    ["refunded", sums.refunded], ["charges captured", sums.captured], ["charges refunded", sums.refunds],
    ["notifications", sums.notifications], ["invoices", sums.invoices],
    ["dead letters of unreadable messages, discarded", data.discarded],
  ]);

  const history = Report.section("What happened");
  const row = (entry) => [entry.what, seconds(entry.from_ms), seconds(entry.until_ms),
    { text: entry.ended, className: entry.unexpected ? "wrong" : "" }];
  Report.table(history, [["what", "from, s", "until, s", "how it ended"], ...data.history.map(row)]);
}
