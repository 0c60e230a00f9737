// The comparison's page: what is to be seen, the curves, the figures.
{
  const { data } = Report;
  const SLOTS = [3, 1];

  const summary = Report.section("What is to be seen");
  for (const sentence of data.sentences) summary.append(Report.element("p", "", sentence));
  summary.append(Report.element("p", "muted", data.setting));
  summary.append(Report.element("p", data.balanced ? "good" : "wrong",
    data.balanced ? "The books of both runs balance." : "The books do not balance."));

  const times = data.curves.flatMap((curves) =>
    [curves.accepted_per_s, curves.paid_per_s, curves.queue].flatMap((points) => points.map(([time_ms]) => time_ms)));
  const to_ms = times.reduce((most, time_ms) => Math.max(most, time_ms), 1_000);
  // Both runs lose payment at the same moment; coming back may take one of them a little longer.
  const shades = [{
    from_ms: Math.min(...data.curves.map((curves) => curves.killed_ms)),
    to_ms: Math.max(...data.curves.map((curves) => curves.restarted_ms)),
    label: "payment is away",
  }];
  const both = (title, unit, curve, more) => Report.chart({
    title, unit, from_ms: 0, to_ms, zero_ms: 0, shades, height: 200,
    series: data.curves.map((curves, index) => ({ name: data.modes[index], slot: SLOTS[index], points: curves[curve] })),
    ...more,
  });
  both("Orders accepted", "per second", "accepted_per_s");
  both("Answer to the customer, p99", "ms", "answer_p99_ms", { log: true });
  both("Waiting for payment-service", "messages", "queue");
  both("Orders paid", "per second", "paid_per_s");

  const figures = Report.section("Figures");
  const head = ["", ...data.modes.flatMap((mode) => data.phases.map((phase, index) =>
    ({ text: `${mode}, ${phase}`, className: index === 0 ? "group" : "" })))];
  const rows = data.rows.map(([name, modes]) =>
    [name, ...modes.flatMap((phases) => phases.map((text, index) => ({ text, className: index === 0 ? "group" : "" })))]);
  const sums = data.sums.map(([name, modes]) => [name, ...modes.map((text) => ({ text, span: 3, className: "group" }))]);
  Report.table(figures, [head, ...rows, ...sums]);
}
