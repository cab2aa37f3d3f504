"""Captions of a scene in three languages, short (fits in 32 tokens) and long (does not; its facts are spread out).

Two scenes of one family get the same words in another order, so a bag of words cannot tell them apart. That is why
Spanish says "de color rojo": the adjective would change with the gender of the shape.
"""

from ivcore.datasets.shapes.scenes import Scene

LANGUAGES = ("en", "zh", "es")
TEXT_CLASSES = ("short", "long")

WORDS = {  # in the order of LANGUAGES
    "red": ("red", "红色", "rojo"),
    "green": ("green", "绿色", "verde"),
    "blue": ("blue", "蓝色", "azul"),
    "yellow": ("yellow", "黄色", "amarillo"),
    "white": ("white", "白色", "blanco"),
    "purple": ("purple", "紫色", "morado"),
    "circle": ("circle", "圆形", "un círculo"),
    "square": ("square", "方形", "un cuadrado"),
    "triangle": ("triangle", "三角", "un triángulo"),
    "cross": ("cross", "十字", "una cruz"),
    "left": ("moves left", "左移", "va a la izquierda"),
    "right": ("moves right", "右移", "va a la derecha"),
    "up": ("moves up", "上移", "sube"),
    "down": ("moves down", "下移", "baja"),
    "still": ("stays still", "静止", "no se mueve"),
    "grow": ("grows", "变大", "crece"),
    "shrink": ("shrinks", "变小", "encoge"),
}
# c0 s0 m0 are colour, shape and motion of the first object in reading order, c1 s1 m1 of the second, and so on.
PATTERNS = {
    ("en", "short", 2): "a {c0} {s0} that {m0} above a {c1} {s1} that {m1}",
    ("zh", "short", 2): "{m0}的{c0}{s0}在{m1}的{c1}{s1}上方",
    ("es", "short", 2): "{s0} de color {c0} que {m0} encima de {s1} de color {c1} que {m1}",
    ("en", "short", 4): "{c0} {s0} {m0}, {c1} {s1} {m1}, {c2} {s2} {m2}, {c3} {s3} {m3}",
    ("zh", "short", 4): "{c0}{s0}{m0},{c1}{s1}{m1},{c2}{s2}{m2},{c3}{s3}{m3}",
    ("es", "short", 4): "{s0} {c0} {m0}, {s1} {c1} {m1}, {s2} {c2} {m2}, {s3} {c3} {m3}",
    ("en", "long", 2): "this short clip shows two shapes on a dark background. the upper one is a {s0} and the lower"
    " one is a {s1}. when it comes to their colours, the upper one is {c0} while the lower one is {c1}. as for what"
    " they do until the clip ends, the upper one {m0} and the lower one {m1}.",
    ("zh", "long", 2): "这段短视频里有两个图形，背景是深色的。上面的是{s0}，下面的是{s1}。说到颜色，上面的是{c0}，"
    "下面的是{c1}。随着时间过去，上面的{m0}，下面的{m1}。",
    ("es", "long", 2): "en este vídeo corto se ven dos figuras sobre un fondo oscuro. arriba hay {s0} y abajo hay {s1}."
    " en cuanto al color, arriba se ve el {c0} y abajo se ve el {c1}. mientras pasan los segundos, la figura de arriba"
    " {m0} y la figura de abajo {m1}.",
    ("en", "long", 4): "this short clip shows four shapes on a dark background. read row by row, they are a {s0}, a"
    " {s1}, a {s2} and a {s3}. in the same order, their colours are {c0}, {c1}, {c2} and {c3}. until the clip ends,"
    " the first {m0}, the second {m1}, the third {m2} and the fourth {m3}.",
    ("zh", "long", 4): "这段短视频里有四个图形，背景是深色的。一行一行地看，是{s0}，{s1}，{s2}和{s3}。按同样的顺序，"
    "颜色是{c0}，{c1}，{c2}和{c3}。随着时间过去，第一个{m0}，第二个{m1}，第三个{m2}，第四个{m3}。",
    ("es", "long", 4): "en este vídeo corto se ven cuatro figuras sobre un fondo oscuro. fila por fila son {s0}, {s1},"
    " {s2} y {s3}. en el mismo orden, sus colores son {c0}, {c1}, {c2} y {c3}. mientras pasan los segundos, la primera"
    " {m0}, la segunda {m1}, la tercera {m2} y la cuarta {m3}.",
}


def caption(scene: Scene, language: str, text_class: str) -> str:
    """The caption of a scene.

    >>> caption((("red", "cross", "up"), ("white", "square", "still")), "en", "short")
    'a red cross that moves up above a white square that stays still'
    """
    place = LANGUAGES.index(language)
    words: dict[str, str] = {}
    for n, thing in enumerate(scene):
        words |= {f"{letter}{n}": WORDS[word][place] for letter, word in zip("csm", thing)}
    return PATTERNS[language, text_class, len(scene)].format(**words)
