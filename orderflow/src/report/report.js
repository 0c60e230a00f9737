// What every report builds its page with. Text only ever becomes text: figures can hold anything.
const Report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const main = document.getElementById("report");

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined && text !== null) made.textContent = String(text);
    return made;
  }

  // A block of the page, with a heading if one is given.
  function section(heading) {
    const made = element("section");
    if (heading) made.append(element("h2", "", heading));
    main.append(made);
    return made;
  }

  // Rows of cells; a cell is a text, a number, or { text, className, span }. The first row is the head.
  function table(container, rows) {
    const wide = element("div", "wide");
    const made = element("table");
    rows.forEach((row, index) => {
      const line = element("tr");
      row.forEach((cell, column) => {
        const { text, className = "", span = 1 } = cell !== null && typeof cell === "object" ? cell : { text: cell };
        const number = column > 0 ? "number" : "";
        const head = index === 0 || column === 0;
        const made = element(head ? "th" : "td", `${number} ${className}`.trim(), text);
        if (head) made.scope = index === 0 ? "col" : "row";
        if (span > 1) made.colSpan = span;
        line.append(made);
      });
      made.append(line);
    });
    wide.append(made);
    container.append(wide);
    return made;
  }

  // A chart in a block of its own.
  function chart(options) {
    return Chart.line(section(), options);
  }

  const add = (node) => main.append(node);
  return { data, element, section, table, chart, add };
})();
