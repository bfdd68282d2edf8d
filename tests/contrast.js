// A function body that returns the texts whose contrast with their background is below 4.5 to 1 (WCAG 2.2, 1.4.3), as
// "ratio class text".
const luminance = (colour) => {
  const [red, green, blue] = colour.map((level) => {
    const share = level / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const parse = (text) => text.match(/[\d.]+/g).map(Number);
const behind = (element) => {
  for (let parent = element; parent; parent = parent.parentElement) {
    const [red, green, blue, opacity = 1] = parse(getComputedStyle(parent).backgroundColor);
    if (opacity === 1) return [red, green, blue];
  }
  return [255, 255, 255];
};
const faults = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode.textContent.trim();
  const element = walker.currentNode.parentElement;
  // The rule excepts disabled controls. Text inside a picture, and text for screen readers only, is not seen as text.
  if (!text || element.closest("script, title, [hidden], .view, .hidden, .skip, :disabled") || !element.checkVisibility()) continue;
  const svg = element.closest("svg");
  const style = getComputedStyle(element);
  const bar = svg?.classList.contains("segment") ? svg.querySelector("rect") : null;
  const fore = parse(svg ? style.fill : style.color);
  const back = bar ? parse(getComputedStyle(bar).fill) : behind(svg ? svg.parentElement : element);
  const [light, dark] = [luminance(fore), luminance(back)].sort((a, b) => b - a);
  const ratio = (light + 0.05) / (dark + 0.05);
  if (ratio < 4.5) faults.push(`${ratio.toFixed(2)} ${element.getAttribute("class")} ${text.slice(0, 40)}`);
}
return faults;
