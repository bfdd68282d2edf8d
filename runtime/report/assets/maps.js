// Activation maps: gray pictures of the model's grid, drawn over the frame in colours that mucosa and blood do not have.
const maps = (() => {
  // Blue to pale yellow, never so dense that the lesion is hidden. Columns are value, red, green, blue, opacity.
  const stops = [[0, 20, 40, 120, 0], [0.25, 30, 90, 200, 0.24], [0.5, 20, 190, 220, 0.38], [0.75, 150, 240, 200, 0.44], [1, 255, 255, 210, 0.48]];
  const table = new Uint8ClampedArray(256 * 4);
  for (let i = 0; i < 256; i += 1) {
    const upper = Math.max(1, stops.findIndex((stop) => stop[0] >= i / 255));
    const [low, high] = [stops[upper - 1], stops[upper]];
    const share = (i / 255 - low[0]) / (high[0] - low[0]);
    for (let c = 0; c < 4; c += 1) {
      const value = low[c + 1] + share * (high[c + 1] - low[c + 1]);
      table[4 * i + c] = c === 3 ? value * 255 : value;
    }
  }

  // Draws the map of a figure once; the figure may be a copy of a card's.
  function draw(figure) {
    if (!figure.dataset.map || figure.querySelector("canvas")) return;
    const frame = figure.querySelector("img");
    const canvas = document.createElement("canvas");
    canvas.width = frame.getAttribute("width");
    canvas.height = frame.getAttribute("height");
    canvas.setAttribute("aria-hidden", "true");
    frame.after(canvas);
    const source = new Image();
    source.onload = () => {
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.imageSmoothingQuality = "high";
      context.drawImage(source, 0, 0, canvas.width, canvas.height);
      const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
      for (let i = 0; i < pixels.data.length; i += 4) {
        const value = 4 * pixels.data[i];
        for (let c = 0; c < 4; c += 1) pixels.data[i + c] = table[value + c];
      }
      context.putImageData(pixels, 0, 0);
    };
    source.src = figure.dataset.map;
  }

  return {
    show(figure, on) {
      figure.classList.toggle("mapped", on);
      if (on) draw(figure);
    },
  };
})();
