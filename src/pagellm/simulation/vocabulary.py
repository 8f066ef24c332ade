"""The words of the demo shop: departments, themes and what things are called in them. Data only; all names are invented."""

from __future__ import annotations

from typing import NamedTuple


class Theme(NamedTuple):
    """One leaf of the category tree and the words that its titles are made of."""

    department: str
    name: str
    nouns: tuple[str, ...]
    materials: tuple[str, ...]
    specs: tuple[str, ...]
    price: float  # typical, in the shop's currency


def _theme(department: str, name: str, nouns: str, materials: str, specs: str, price: float) -> Theme:
    split = [tuple(part.strip() for part in words.split("|")) for words in (nouns, materials, specs)]
    return Theme(department, name, split[0], split[1], split[2], price)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


THEMES: tuple[Theme, ...] = (
    _theme(
        "Kitchen",
        "Coffee & Tea",
        "Teapot|Pour-Over Dripper|Milk Pitcher|Coffee Grinder",
        "Stoneware|Copper|Glass|Steel",
        "600 ml|900 ml|1.2 l",
        34,
    ),
    _theme(
        "Living Room",
        "Lighting",
        "Table Lamp|Floor Lamp|Pendant Light|Reading Lamp",
        "Linen|Brass|Paper|Opal Glass",
        "E14|E27|dimmable",
        62,
    ),
    _theme(
        "Garden",
        "Planters",
        "Plant Pot|Window Box|Hanging Planter|Raised Bed",
        "Terracotta|Zinc|Fiberstone|Cedar",
        "18 cm|28 cm|40 cm",
        27,
    ),
    _theme(
        "Sports",
        "Running",
        "Running Vest|Running Belt|Ankle Socks|Headband",
        "Merino|Mesh|Reflective|Bamboo",
        "size S|size M|size L",
        24,
    ),
    _theme(
        "Pets",
        "Dogs",
        "Dog Leash|Dog Bed|Chew Toy|Dog Harness",
        "Hemp|Canvas|Rubber|Fleece",
        "small breed|medium breed|large breed",
        29,
    ),
    _theme(
        "Stationery",
        "Notebooks",
        "Notebook|Bullet Journal|Sketchbook|Weekly Planner",
        "Linen-Bound|Recycled|Leather|Kraft",
        "A6|A5|A4",
        16,
    ),
    _theme(
        "Care",
        "Bath & Shower",
        "Shower Oil|Bath Salt|Hand Soap|Body Scrub",
        "Lavender|Cedarwood|Grapefruit|Oat",
        "100 ml|250 ml|500 ml",
        13,
    ),
    _theme(
        "Kids",
        "Wooden Toys",
        "Stacking Tower|Train Set|Puzzle Board|Shape Sorter",
        "Beech|Maple|Cork|Painted",
        "12 pieces|24 pieces|48 pieces",
        31,
    ),
    _theme(
        "Kitchen",
        "Cookware",
        "Saucepan|Frying Pan|Casserole|Wok",
        "Cast Iron|Enamel|Carbon Steel|Ceramic",
        "20 cm|24 cm|28 cm",
        72,
    ),
    _theme(
        "Kitchen",
        "Tableware",
        "Dinner Plate|Soup Bowl|Serving Dish|Espresso Cup",
        "Porcelain|Earthenware|Bamboo|Melamine",
        "set of 2|set of 4|set of 6",
        41,
    ),
    _theme(
        "Kitchen",
        "Baking",
        "Cake Tin|Rolling Pin|Proofing Basket|Pastry Brush",
        "Beechwood|Silicone|Rattan|Tinplate",
        "mini|standard|family",
        19,
    ),
    _theme(
        "Living Room",
        "Cushions & Throws",
        "Cushion Cover|Throw Blanket|Floor Cushion|Seat Pad",
        "Wool|Velvet|Cotton|Boucle",
        "45 cm|60 cm|130 cm",
        38,
    ),
    _theme(
        "Living Room",
        "Wall Decor",
        "Wall Mirror|Picture Frame|Wall Clock|Art Print",
        "Oak|Walnut|Aluminum|Rattan-Edge",
        "30 cm|50 cm|70 cm",
        45,
    ),
    _theme(
        "Living Room",
        "Candles",
        "Scented Candle|Pillar Candle|Candle Holder|Tealight Set",
        "Beeswax|Soy|Marble|Smoked Glass",
        "20 h|40 h|60 h",
        21,
    ),
    _theme(
        "Garden",
        "Tools",
        "Hand Trowel|Pruning Shears|Garden Fork|Weeding Knife",
        "Ash|Forged Steel|Bronze|Composite",
        "short|medium|long",
        26,
    ),
    _theme(
        "Garden",
        "Seeds & Bulbs",
        "Seed Box|Tulip Bulbs|Herb Kit|Wildflower Mix",
        "Organic|Heirloom|Early|Perennial",
        "10 m2|20 m2|50 m2",
        11,
    ),
    _theme(
        "Garden",
        "Outdoor Living",
        "Hammock|Folding Chair|Lantern|Picnic Blanket",
        "Teak|Woven|Powder-Coated|Waterproof",
        "single|double|family size",
        68,
    ),
    _theme(
        "Sports",
        "Yoga",
        "Yoga Mat|Yoga Block|Bolster|Stretch Strap",
        "Natural Rubber|Jute|Cork-Top|Buckwheat",
        "3 mm|5 mm|8 mm",
        36,
    ),
    _theme(
        "Sports",
        "Cycling",
        "Bike Light|Pannier Bag|Bike Bell|Frame Bag",
        "Ripstop|Anodized|Waxed|Magnetic",
        "front|rear|pair",
        39,
    ),
    _theme(
        "Sports",
        "Camping",
        "Sleeping Pad|Camp Stove|Dry Bag|Head Torch",
        "Ultralight|Down|Titanium|Insulated",
        "1 person|2 person|4 person",
        64,
    ),
    _theme(
        "Pets",
        "Cats",
        "Cat Tree|Scratching Post|Feather Wand|Cat Tunnel",
        "Sisal|Felt|Plush|Seagrass",
        "40 cm tall|80 cm tall|120 cm tall",
        33,
    ),
    _theme(
        "Pets",
        "Aquarium",
        "Aquarium Filter|Root Wood|Gravel Mix|Tank Light",
        "Quiet|Bog|Basalt|Full-Spectrum",
        "30 l|60 l|120 l",
        42,
    ),
    _theme(
        "Pets",
        "Birds",
        "Bird Feeder|Nest Box|Bird Bath|Seed Blend",
        "Slate|Larch|Recycled-Plastic|No-Mess",
        "garden|balcony|window",
        23,
    ),
    _theme(
        "Stationery",
        "Pens & Ink",
        "Fountain Pen|Ink Bottle|Gel Pen Set|Mechanical Pencil",
        "Resin|Lacquered|Pigment|Hexagonal",
        "extra fine|fine|broad",
        28,
    ),
    _theme(
        "Stationery",
        "Desk",
        "Desk Organizer|Pen Tray|Desk Mat|Monitor Stand",
        "Felted Wool|Birch|Perforated Steel|Acrylic",
        "compact|regular|wide",
        37,
    ),
    _theme(
        "Stationery",
        "Craft",
        "Watercolor Set|Embroidery Kit|Linocut Kit|Origami Paper",
        "Student|Studio|Botanical|Japanese",
        "12 colors|24 colors|36 colors",
        25,
    ),
    _theme(
        "Care", "Skin", "Face Cream|Cleansing Balm|Lip Balm|Face Mist", "Aloe|Shea|Rosehip|Chamomile", "30 ml|50 ml|75 ml", 22
    ),
    _theme(
        "Care",
        "Hair",
        "Hair Brush|Shampoo Bar|Hair Oil|Wooden Comb",
        "Boar Bristle|Argan|Nettle|Pearwood",
        "travel|normal|salon",
        18,
    ),
    _theme(
        "Care",
        "Home Fragrance",
        "Reed Diffuser|Incense|Room Spray|Linen Mist",
        "Sandalwood|Fig|Vetiver|Sea Salt",
        "50 sticks|120 ml|200 ml",
        24,
    ),
    _theme(
        "Kids",
        "Board Games",
        "Card Game|Memory Game|Dice Game|Strategy Game",
        "Cooperative|Magnetic-Tin|Illustrated|Pocket",
        "2 players|4 players|6 players",
        22,
    ),
    _theme(
        "Kids",
        "Nursery",
        "Baby Blanket|Night Light|Crib Mobile|Swaddle",
        "Muslin|Organic-Cotton|Crochet|Moon",
        "newborn|6 months|12 months",
        30,
    ),
    _theme(
        "Kids",
        "Picture Books",
        "Picture Book|Lift-the-Flap Book|Bedtime Stories|Activity Book",
        "Hardcover|Board|Rhyming|Counting",
        "ages 1-3|ages 3-5|ages 5-7",
        14,
    ),
)
"""Themes, so ordered that any first few cover many departments."""

BRANDS: tuple[str, ...] = _words(
    """
    Ostrelm Fennarok Kaldwyr Mirrowby Tolvane Pexmoor Grethelin Varnsby Oluvenna Quenlowe Brundisle Hexwick Yarrowdun
    Sondrelle Tavmoor Ulverine Nimbrook Corvantel Jestrane Embrelow Dunmarrow Lisquell Padrowen Wexholme Zelquin Arbentol
    Ithwaine Rosquill Kelmbry Fothelm Maruvane Birquist Thessaloon Gorbeline Evenquay Plimsward Ordwyke Cassoway Hollomere
    Juntrel
    """
)
"""Invented brand names."""

LINES: tuple[str, ...] = _words(
    """
    Harbor Meadow Ember Willow Tundra Lagoon Cinder Orchard Summit Prairie Canyon Drift Aurora Bramble Juniper Marsh Quarry
    Thicket Vale Breeze Solstice Hollow Pebble Grove Fjord Monsoon Saffron Cobble Larkspur Nectar Dune Glacier Hazel Ivy
    Lantern Moss Nutmeg Onyx Poppy Reef Sorrel Thistle Umber Violet Wren Yonder Zephyr Acorn Birchwood Clover
    """
)
"""Product lines: a near-duplicate group has one."""

COLORS: tuple[str, ...] = _words(
    """
    Sage Charcoal Ivory Rust Navy Blush Mustard Forest Sand Plum Sky Stone
    """
)
"""What tells near-duplicates apart."""
