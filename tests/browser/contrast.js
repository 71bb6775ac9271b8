// Each text that can be seen, and its contrast with what is painted behind it (WCAG 2.2, 1.4.3).

const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

// Any CSS colour as red, green, blue and opacity; a canvas knows them all.
function parse(colour) {
  context.clearRect(0, 0, 1, 1);
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
  return [red, green, blue, alpha / 255];
}

const over = (above, below) => [0, 1, 2].map((i) => above[i] * above[3] + below[i] * (1 - above[3])).concat(1);

function behind(element) {
  const layers = [];
  for (let each = element; each; each = each.parentElement) {
    layers.unshift(parse(getComputedStyle(each).backgroundColor));
    if (each.tagName === "DIALOG") break;
  }
  return layers.reduce((below, above) => over(above, below), [255, 255, 255, 1]);
}

function luminance(colour) {
  const [red, green, blue] = colour.slice(0, 3).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function ratio(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

function ofText(element) {
  const style = getComputedStyle(element);
  const ground = element.closest(".trip") ? parse(getComputedStyle(element.closest(".trip").querySelector(".run")).fill) : behind(element);
  const ink = over(parse(element.closest(".trip") ? style.fill : style.color), ground);
  const size = parseFloat(style.fontSize);
  const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  return { text: element.textContent.trim().slice(0, 40), ratio: ratio(ink, ground), needed: isLarge ? 3 : 4.5 };
}

const isSeen = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !element.closest("title, .unseen, .skip");
const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());

return [...document.body.querySelectorAll("*")].filter((element) => hasText(element) && isSeen(element)).map(ofText);
