"""The names of the made-up world: people are FIRST x FAMILY, towns are STEM x SECOND.

Plain words on purpose, so that the questions read like questions. The grid is far larger than the
world (14,400 people, 3,600 towns): every name part is shared by several known, several held-out and
many passing entities, so no single word of a question tells whether its answer was ever learned.
"""

from __future__ import annotations


def words(text: str) -> list[str]:
    """The words of a text: lists of names are easier to read and to mend as text."""
    return text.split()


FIRST_NAMES = words("""
Adela Agnes Alba Ambrose Anselm Barnaby Benedikt Bettina Bram Briony Caspar Celandine Clemence Corin
Cosima Cyprian Damaris Delphine Dorian Dorothea Dunstan Edith Elspet Emeric Esme Evander Fabian
Fenna Flora Florian Freya Garrick Gideon Greta Gunnar Hedwig Henrike Hester Hollis Honor Hugo Ilse
Imogen Inga Isidor Ivo Jasper Joachim Jocasta Jory Joss Juniper Katrin Kester Keziah Klara Konrad
Lambert Lavinia Linnea Lorcan Lucasta Mabel Magnus Maren Meredith Milo Mirabel Nell Nerys Nestor
Nico Noemi Odile Orla Osric Oswin Ottilie Perpetua Petra Philippa Phineas Piers Prudence Quentin
Rafe Ramona Roderic Rosalind Rowan Rufus Sabine Selma Sidony Silas Sorrel Sunniva Tamsin Thea Tilda
Tobin Tristan Ulla Ulric Una Ursula Valentin Verity Vesper Viggo Wendel Wilfred Willa Winifred Wren
Wystan Yorick Ysolde Yvaine Zillah
""")

FAMILY_NAMES = words("""
Applegarth Ashgrove Barleycorn Birdsall Blackthorn Bracegirdle Brightwell Brockhurst Buttercross
Candlewick Catchpole Cloudesley Coldstream Cornflower Crabtree Crosskeys Dandelion Dewhurst Doveland
Dragonfly Drinkwater Duckworth Eggleston Elderberry Everline Fairweather Farthing Featherbed Fernsby
Fiddlewood Firebrace Flaxman Foxwell Frostick Gatherall Gildersleeve Goldfinch Goodbody Gooseley
Greengrass Halfpenny Hammerstone Harewood Hawksworth Heatherly Hedgecock Highmoor Hollyoak
Honeychurch Hoppington Inkpen Ivyleaf Jessamy Kettleby Kingfisher Kirtle Ladybird Lambswool Larkspur
Lightfoot Lilywhite Longacre Lovejoy Makepeace Marchbank Merriweather Midwinter Millhouse Moonlight
Mossman Mulberry Netherwood Nettlefold Nutcombe Oakshott Oldacre Openshaw Orchard Ottaway Partridge
Peascod Penhallow Peppercorn Pettigrew Pickersgill Pinecroft Plumtree Puddifoot Quickthorn
Quillfeather Rainbird Ravenhill Redfern Rosewarne Rushbrook Sandpiper Shoesmith Silverlock Skylark
Snowball Softley Starling Stillwell Sunderwood Swallowtail Tanglewood Thistledown Threadgold Toogood
Truelove Twelvetrees Underhill Vinterby Wainscot Waterhouse Weathervane Whistlecroft Winterbourne
Woodruff Yarrow
""")

TOWN_STEMS = words("""
Amber Apple Arrow Ashen Autumn Barley Beacon Bitter Blue Bracken Bright Broken Broom Butter Button
Cedar Chalk Cinder Clay Cloud Cobble Cold Copper Coral Cricket Crooked Crow Crystal Daisy Dancing
Deep Dove Drift Dusk Eagle Elder Elm Fiddler Flax Flint Fog Frost Furrow Gander Glass Golden Gorse
Granite Grey Gull Hare Harvest Hay High Iron Ivy Jackdaw Kettle Lamp Larch Lark Laurel Lavender
Lichen Lily Linden Little Low Maple Marble Marsh May Merry Mint Misty Moon Moss Moth Nether Night
North Nut Oat Old Osier Owl Pebble Pepper Pigeon Pilgrim Pine Plover Poplar Poppy Rain Raven Red
Robin Rush Rye Sand Shell Silk Silver Smoke Snow Star Storm Straw Summer Swan Thunder Timber Tin
Violet Walnut Wax Weeping Wild Willow
""")

TOWN_SECONDS = words("""
Abbey Bank Bridge Common Corner Cross Crossing End Ferry Ford Gate Green Harbour Haven Heath Hill
Landing Lock Market Meadow Mill Moor Point Quay Reach Steps Tower Vale Well Wharf
""")
