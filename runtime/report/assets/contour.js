// The activation contour: a thin line around the parts of a frame that speak for the finding, drawn from a gray picture of
// the model's grid. It hides nothing of the mucosa, as colours over the frame would.
const contour = (() => {
  const SIDE = 65; // points of the finer grid in which the line is sought
  const LEVEL = 0.5; // of the strongest evidence

  // The values of a map between the centres of its cells, SIDE x SIDE.
  function refine(pixels, width, height) {
    const values = new Float32Array(SIDE * SIDE);
    const at = (x, y) => pixels[4 * (clamp(y, 0, height - 1) * width + clamp(x, 0, width - 1))] / 255;
    for (let row = 0; row < SIDE; row += 1) {
      for (let column = 0; column < SIDE; column += 1) {
        const x = column / (SIDE - 1) * width - 0.5;
        const y = row / (SIDE - 1) * height - 0.5;
        const [left, top] = [Math.floor(x), Math.floor(y)];
        const [right, down] = [x - left, y - top];
        const upper = at(left, top) * (1 - right) + at(left + 1, top) * right;
        const lower = at(left, top + 1) * (1 - right) + at(left + 1, top + 1) * right;
        values[row * SIDE + column] = upper * (1 - down) + lower * down;
      }
    }
    return values;
  }

  // Marching squares: in each square of the grid, the line joins the points of its sides where the level is crossed.
  function trace(values, size) {
    const path = new Path2D();
    const corner = (x, y) => values[y * SIDE + x] - LEVEL;
    const unit = size / (SIDE - 1);
    for (let y = 0; y < SIDE - 1; y += 1) {
      for (let x = 0; x < SIDE - 1; x += 1) {
        const [a, b, c, d] = [corner(x, y), corner(x + 1, y), corner(x + 1, y + 1), corner(x, y + 1)];
        const points = [];
        if (a < 0 !== b < 0) points.push([x + a / (a - b), y]);
        if (b < 0 !== c < 0) points.push([x + 1, y + b / (b - c)]);
        if (c < 0 !== d < 0) points.push([x + 1 - c / (c - d), y + 1]);
        if (d < 0 !== a < 0) points.push([x, y + 1 - d / (d - a)]);
        for (let i = 0; i + 1 < points.length; i += 2) {
          path.moveTo(points[i][0] * unit, points[i][1] * unit);
          path.lineTo(points[i + 1][0] * unit, points[i + 1][1] * unit);
        }
      }
    }
    return path;
  }

  // A canvas with the contour of a map, filled once the map is decoded.
  function draw(uri) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1024;
    canvas.setAttribute("aria-hidden", "true");
    const source = new Image();
    source.onload = () => {
      const grid = document.createElement("canvas");
      grid.width = source.naturalWidth;
      grid.height = source.naturalHeight;
      const pen = grid.getContext("2d", { willReadFrequently: true });
      pen.drawImage(source, 0, 0);
      const { data, width, height } = pen.getImageData(0, 0, grid.width, grid.height);
      const path = trace(refine(data, width, height), canvas.width);
      const context = canvas.getContext("2d");
      context.lineCap = "round";
      // Dark under light: one of the two stands out on any mucosa.
      for (const [colour, thickness] of [["#00000099", 7], ["#7df9ff", 3]]) {
        context.strokeStyle = colour;
        context.lineWidth = thickness;
        context.stroke(path);
      }
      canvas.dataset.drawn = "";
    };
    source.src = uri;
    return canvas;
  }

  return { draw };
})();
