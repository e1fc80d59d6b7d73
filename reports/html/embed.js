// Unpacks the library, draws each plot in the colours of the theme, and again when the theme changes.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const palette = () =>
    dark.matches
      ? ["#58a6ff", "#f0883e", "#3fb950", "#f778ba", "#d2a8ff", "#e3b341", "#39c5cf", "#ff7b72", "#a5b4c3", "#7ee787"]
      : ["#0969da", "#bc4c00", "#1a7f37", "#bf3989", "#8250df", "#9a6700", "#1b7c83", "#cf222e", "#57606a", "#4d2d00"];
  const config = () => {
    const text = dark.matches ? "#c9d1d9" : "#24292f";
    const grid = dark.matches ? "#30363d" : "#e3e6ea";
    const axis = { labelColor: text, titleColor: text, gridColor: grid, domainColor: grid, tickColor: grid };
    return {
      background: "transparent",
      font: "system-ui, sans-serif",
      view: { stroke: null },
      axis: { ...axis, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" },
      legend: { columns: window.innerWidth < 640 ? 2 : 4, labelColor: text, labelFontSize: 12, symbolType: "stroke", rowPadding: 2 },
      range: { category: palette() },
    };
  };
  const unpack = async () => {
    const packed = Uint8Array.from(atob(document.getElementById("vega").textContent), (letter) => letter.charCodeAt(0));
    const code = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(code).text();
    document.head.append(script);
  };
  const fail = (place, error) => {
    place.textContent = `This plot cannot be drawn (${error.message}); its numbers are in the CSV.`;
  };
  const draw = () => {
    for (const source of document.querySelectorAll("script[data-for]")) {
      const place = document.getElementById(source.dataset.for);
      const spec = JSON.parse(source.textContent);
      window
        .vegaEmbed(place, { ...spec, config: config(), autosize: { type: "fit-x", contains: "padding" } }, { actions: false, renderer: "svg", loader: { target: "_self" } })
        .catch((error) => fail(place, error));
    }
  };
  // A link to what is folded away opens it.
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let place = target; place; place = place.parentElement) if (place.tagName === "DETAILS") place.open = true;
    target?.scrollIntoView({ block: "center" });
  };
  window.addEventListener("hashchange", reveal);
  reveal();
  unpack().then(
    () => {
      draw();
      dark.addEventListener("change", draw);
    },
    (error) => document.querySelectorAll(".plot").forEach((place) => fail(place, error)),
  );
})();
