// What is visible first is drawn first; the charts follow one by one.
setUpTheme();
setUpMethods();
setUpBoard();
setUpControls();
setUpSamples();
showMethods(METHODS.map((method) => method.name));
const redraw = setUpRounds();
drawCharts().then(() => {
  if (redraw) redraw();
  document.documentElement.dataset.ready = "yes";
});
